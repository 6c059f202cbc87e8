"""The options that every command of a client has, and the connection they make."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
from rich.text import Text

from onbelay_client import Client, OnbelayError, connect
from onbelay_client.channel import is_loopback
from onbelay_client.protojson import ReplyMessage, to_json
from onbelay_server.cli.outcome import (
    CommandFailed,
    ExitCode,
    code_of_error,
    line_of_error,
    line_of_os_error,
)
from onbelay_server.cli.serving import settings_of
from onbelay_server.cli.terminal import err

DEFAULT_SERVER = "127.0.0.1:50051"
# Somebody looks at the screen: a server that is not there should be told of soon.
PATIENCE_SECONDS = 3.0
SERVER_VARIABLE = "ONBELAY_SERVER"
_SUBJECTS = ("run_id", "approval_id", "operation_id", "agent", "blueprint", "what", "run", "parent")
"""Parameters of commands that name what is asked for, the narrowest first."""

Parameters = ParamSpec("Parameters")

_PANEL = "Connection"
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "server": (
        Annotated[
            str,
            typer.Option(
                help="host:port; grpc:// forbids TLS, grpcs:// demands it.",
                envvar=SERVER_VARIABLE,
                rich_help_panel=_PANEL,
            ),
        ],
        DEFAULT_SERVER,
    ),
    "api_key": (
        Annotated[
            str,
            typer.Option(
                help="Token or key; by default the local server's developer token.",
                envvar="ONBELAY_API_KEY",
                show_envvar=True,
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ],
        "",
    ),
    "ca_cert": (
        Annotated[
            Path | None,
            typer.Option(
                help="PEM file of the authority to trust.",
                envvar="ONBELAY_CA_CERT",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "as_json": (
        Annotated[
            bool,
            typer.Option(
                "--json", help="Print the replies' own JSON, one a line.", rich_help_panel=_PANEL
            ),
        ],
        False,
    ),
}


class Connection:
    """A client that is made when it is first needed, and how its replies are printed."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        api_key: str = "",
        *,
        ca_cert: Path | None = None,
        as_json: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.server = server
        self.as_json = as_json
        self._api_key = api_key
        self._ca_cert = ca_cert
        self._patience_seconds = patience_seconds
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client; CommandFailed when there is no credential or the address is none."""
        if self._client is None:
            try:
                self._client = connect(
                    self.server,
                    self._api_key or self._developer_token(),
                    ca_cert=self._ca_cert,
                    patience_seconds=self._patience_seconds,
                )
            except OSError as error:
                raise CommandFailed(line_of_os_error(error), ExitCode.USAGE) from error
            except ValueError as error:
                raise CommandFailed(str(error), ExitCode.USAGE) from error
        return self._client

    def print_json(self, reply: ReplyMessage) -> None:
        """The reply's protobuf JSON on a line of its own, at once."""
        sys.stdout.write(to_json(reply) + "\n")
        sys.stdout.flush()

    def say(self, text: str | Text) -> None:
        """A remark for people; not part of what the command gives."""
        err().print(text if isinstance(text, Text) else Text(text))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _developer_token(self) -> str:
        """The token that a local server keeps for its developer; never for another machine."""
        host = self.server.rpartition("://")[2].rpartition(":")[0]
        if not is_loopback(host):
            raise CommandFailed(
                f"no credential for {self.server}: give --api-key or set ONBELAY_API_KEY",
                ExitCode.USAGE,
            )
        path = settings_of().token_path
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError:
            raise CommandFailed(
                "no credential: give --api-key or set ONBELAY_API_KEY "
                f"(no developer token in {path}; `onbelay serve` makes one)",
                ExitCode.USAGE,
            ) from None


def command(
    app: typer.Typer, name: str
) -> Callable[[Callable[Concatenate[Connection, Parameters], None]], Callable[Parameters, None]]:
    """Declare a command whose first parameter is the Connection; its options come by themselves."""

    def declare(
        function: Callable[Concatenate[Connection, Parameters], None],
    ) -> Callable[Parameters, None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        hints = typing.get_type_hints(function, include_extras=True)
        annotations = {each.name: hints[each.name] for each in own}
        parameters = [each.replace(annotation=annotations[each.name]) for each in own]
        for option, (annotation, default) in _OPTIONS.items():
            annotations[option] = annotation
            parameters.append(
                inspect.Parameter(
                    option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                )
            )

        @functools.wraps(function)
        def run(*args: Any, **values: Any) -> None:
            options = {option: values.pop(option) for option in _OPTIONS}
            connection = Connection(**options)
            try:
                function(connection, *args, **values)
            except OnbelayError as error:
                # Only here is it known whom and what was asked for.
                line = line_of_error(error, server=connection.server, subject=_subject(values))
                raise CommandFailed(line, code_of_error(error)) from error
            finally:
                connection.close()

        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        run.__annotations__ = annotations
        del run.__wrapped__
        app.command(name)(run)
        return run

    return declare


def server_was_named(server: str) -> bool:
    """Whether the caller said which server, by option or environment."""
    return server != DEFAULT_SERVER or bool(os.environ.get(SERVER_VARIABLE))


def _subject(values: dict[str, Any]) -> str:
    """The id or name the command was given, to be named when there is no such thing."""
    given = (values.get(name) for name in _SUBJECTS)
    return next((each for each in given if isinstance(each, str) and each), "")
