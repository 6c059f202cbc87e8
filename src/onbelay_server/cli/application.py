"""The command `onbelay`: its commands, and how each of them fails."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer
from rich.text import Text

from onbelay_client import OnbelayError
from onbelay_server.cli import (
    agents,
    approvals,
    artifacts,
    backup,
    bench,
    demo,
    developing,
    doctor,
    operations,
    serving,
    starting,
    steering,
    tokens,
)
from onbelay_server.cli.outcome import (
    CommandFailed,
    ExitCode,
    code_of_error,
    line_of_error,
    line_of_os_error,
)
from onbelay_server.cli.terminal import err, safe
from onbelay_server.domain.error import DomainError, Unavailable

DEBUG = "ONBELAY_DEBUG"

app = typer.Typer(
    name="onbelay",
    help="Run AI agents as durable runs: watched, approved, stopped, replayed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for part in (serving, demo, developing, starting):
    app.add_typer(part.app)
app.add_typer(steering.app, name="runs")
app.add_typer(approvals.app, name="approvals")
app.add_typer(operations.app, name="operations")
app.add_typer(agents.app, name="agents")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(tokens.app, name="token")
for part in (doctor, backup, bench):
    app.add_typer(part.app)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        sys.stdout.write(f"onbelay {importlib.metadata.version('onbelay-server')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and end.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run AI agents as durable runs: watched, approved, stopped, replayed."""


def main() -> None:
    """Run the command line; ends the process by its exit code, never by a traceback."""
    try:
        app()
    except Exception as error:
        ending = _ending(error)
        if ending is None:
            if os.environ.get(DEBUG):
                raise
            words = f"unexpected {type(error).__name__}: {error} ({DEBUG}=1 shows more)"
            ending = words, ExitCode.FAILED
        text, code = ending
        err().print(Text(f"error: {safe(' '.join(text.split()))}", style="red"))
        sys.exit(code)


def _ending(error: Exception) -> tuple[str, ExitCode] | None:
    """What to say about an error, and the exit code it has; None for one that nobody expects."""
    match error:
        case CommandFailed():
            return error.text, error.code
        case OnbelayError():
            return line_of_error(error), code_of_error(error)
        case Unavailable():
            return f"{error.text} ({error.reason})", ExitCode.UNAVAILABLE
        case DomainError():
            return f"{error.text} ({error.reason})", ExitCode.FAILED
        case OSError():
            return line_of_os_error(error), ExitCode.FAILED
    wrong_values, others = _operator_errors()
    if isinstance(error, wrong_values):
        return str(error), ExitCode.USAGE
    if isinstance(error, others):
        return str(error), ExitCode.FAILED
    return None


def _operator_errors() -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """Errors whose text is written for whoever runs a server: of wrong values, and all others."""
    # Only a command that had started one can fail so: the imports are paid then.
    from onbelay_server.adapters.catalog.loading import CatalogError
    from onbelay_server.adapters.credentials.secret_file import SecretFileError
    from onbelay_server.adapters.credentials.tokens_file import TokensFileError
    from onbelay_server.adapters.sql import StoreError
    from onbelay_server.adapters.tools import ToolsError
    from onbelay_server.ports.failpoints import FailpointError
    from onbelay_server.transport.grpc.server import ListenError
    from onbelay_server.transport.http.server import HttpListenError

    return (
        (CatalogError, FailpointError, TokensFileError, ToolsError),
        (HttpListenError, ListenError, SecretFileError, StoreError),
    )
