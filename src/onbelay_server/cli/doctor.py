"""`onbelay doctor`: is everything a server or client needs in order?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from onbelay_server.cli.connection import DEFAULT_SERVER, server_was_named
from onbelay_server.cli.outcome import ExitCode
from onbelay_server.cli.serving import (
    Database,
    Http,
    Listen,
    StateDir,
    TlsCert,
    TlsKey,
    TokensFile,
    settings_of,
)
from onbelay_server.cli.terminal import print_table
from onbelay_server.config import Settings

if TYPE_CHECKING:
    from onbelay_server.cli.checks import Finding

app = typer.Typer()

_STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}


@app.command("doctor")
def doctor(
    server: Annotated[
        str, typer.Option(help="host:port of a server to try.", envvar="ONBELAY_SERVER")
    ] = DEFAULT_SERVER,
    api_key: Annotated[
        str, typer.Option(help="Token or key for it.", envvar="ONBELAY_API_KEY")
    ] = "",
    ca_cert: Annotated[
        Path | None, typer.Option(help="PEM file to trust.", envvar="ONBELAY_CA_CERT")
    ] = None,
    listen: Listen = None,
    http: Http = None,
    database: Database = None,
    state_dir: StateDir = None,
    tokens_file: TokensFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Check this machine's settings and a server; exit 1 when something is wrong."""
    settings = settings_of(
        listen=listen,
        http=http,
        database=database,
        state_dir=state_dir,
        tokens_file=tokens_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    findings = list(_findings(settings, server, api_key, ca_cert))
    if as_json:
        rows = [{"name": f.name, "verdict": f.verdict, "text": f.text} for f in findings]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
    else:
        print_table(
            ["CHECK", "", "FOUND"],
            ([f.name, Text(f.verdict, style=_STYLES[f.verdict]), f.text] for f in findings),
        )
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def _findings(
    settings: Settings, server: str, api_key: str, ca_cert: Path | None
) -> Iterator[Finding]:
    # They open the database: commands that only call a server must not pay for that import.
    from onbelay_server.cli.checks import (
        Verdict,
        check_database,
        check_ports,
        check_python,
        check_secrets,
        check_server,
        check_space,
        check_sqlite,
        check_tls,
        check_tokens_file,
    )

    yield from check_python()
    yield from check_sqlite()
    yield from check_database(settings)
    yield from check_secrets(settings)
    yield from check_tokens_file(settings)
    yield from check_tls(settings)
    yield from check_space(settings)
    token = api_key or _developer_token(settings)
    answers = list(check_server(server, token, ca_cert, was_named=server_was_named(server)))
    yield from answers
    server_answers = answers[0].verdict is Verdict.OK
    yield from check_ports(settings, server_answers=server_answers)


def _developer_token(settings: Settings) -> str:
    try:
        return settings.token_path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
