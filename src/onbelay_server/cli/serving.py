"""`onbelay serve` and `onbelay migrate`: the server and its database."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.text import Text

from onbelay_client.channel import is_loopback
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.terminal import err
from onbelay_server.config import Settings, split_address

if TYPE_CHECKING:
    from onbelay_server.wiring import Serving

app = typer.Typer()

Listen = Annotated[
    str | None, typer.Option(help="Address of gRPC. [default: 127.0.0.1:50051]", show_default=False)
]
Http = Annotated[
    str | None,
    typer.Option(help="Address of HTTP, or off. [default: 127.0.0.1:8080]", show_default=False),
]
Database = Annotated[
    str | None,
    typer.Option(help="sqlite:///path or postgresql://…; by default in the state folder."),
]
StateDir = Annotated[
    Path | None, typer.Option(help="Folder of token, keys, database and files.", file_okay=False)
]
TokensFile = Annotated[
    Path | None, typer.Option(help="Who may call; by default a developer token.")
]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain in PEM.")]
TlsKey = Annotated[Path | None, typer.Option(help="Private key in PEM.")]
Agents = Annotated[
    list[str] | None, typer.Option(help="module:function or file.py:function; repeatable.")
]


def settings_of(**given: Any) -> Settings:
    """Settings from options and environment, None being an option that was not given.

    CommandFailed names the option that does not fit."""
    return checked_settings(**{name: value for name, value in given.items() if value is not None})


def checked_settings(**given: Any) -> Settings:
    """Settings(…); CommandFailed names what does not fit."""
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]) or "settings"
            text = problem["msg"].removeprefix("Value error, ")
            lines.append(f"--{name.replace('_', '-')} (ONBELAY_{name.upper()}): {text}")
        raise CommandFailed("; ".join(lines), ExitCode.USAGE) from None


@app.command("serve")
def serve(
    listen: Listen = None,
    http: Http = None,
    database: Database = None,
    state_dir: StateDir = None,
    agents: Agents = None,
    tools: Annotated[list[str] | None, typer.Option(help="Module with tools; repeatable.")] = None,
    tokens_file: TokensFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Other addresses than loopback without TLS.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Runs executed at once.")] = None,
    max_children: Annotated[int | None, typer.Option(help="Child processes at once.")] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="How long a drain waits for calls in flight.")
    ] = None,
    retention_days: Annotated[
        str | None, typer.Option(help="How long finished runs are kept, or off.")
    ] = None,
    synchronous: Annotated[
        str | None, typer.Option(help="SQLite: FULL, or NORMAL to trade power loss for speed.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log as JSON lines.")] = None,
) -> None:
    """Serve until told to stop. Every option is also ONBELAY_…, such as ONBELAY_LISTEN.

    SIGTERM or Ctrl-C drains: streams are told to reconnect, calls in flight end, runs are handed
    back. A second one ends at once.
    """
    settings = settings_of(
        listen=listen,
        http=http,
        database=database,
        state_dir=state_dir,
        agents=agents or None,
        tools=tools or None,
        tokens_file=tokens_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        workers=workers,
        max_children=max_children,
        drain_seconds=drain_seconds,
        retention_days=retention_days,
        synchronous=synchronous,
        log_level=log_level,
        log_json=log_json,
    )
    _check_values(settings)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code, left_behind = runner.run(_serve(settings))
        if left_behind:
            _leave(code)
    if code:
        raise CommandFailed("ended: its agents left too many threads behind", code)


def _check_values(settings: Settings) -> None:
    """CommandFailed for values that cannot be right, before anything is made in the state folder.

    What they hold is looked at by whoever uses it."""
    for option, path in (
        ("--tokens-file", settings.tokens_file),
        ("--tls-cert", settings.tls_cert),
        ("--tls-key", settings.tls_key),
    ):
        if path is not None and not path.is_file():
            raise CommandFailed(f"{option}: no such file: {path}", ExitCode.USAGE)
    for agent in settings.agents:
        file = agent.rpartition(":")[0]
        if file.endswith(".py") and not Path(file).is_file():
            raise CommandFailed(f"--agents: no such file: {file}", ExitCode.USAGE)
    if settings.tls_cert is None and not settings.insecure:
        host, _ = split_address(settings.listen)
        if not is_loopback(host):
            raise CommandFailed(
                f"--listen: {settings.listen} can be reached by others: give --tls-cert and "
                "--tls-key, or --insecure when a proxy in front ends TLS",
                ExitCode.USAGE,
            )


def _leave(code: ExitCode) -> NoReturn:
    """End the process at once. Everything durable is closed; code that would not end could keep
    the interpreter from ending, or be run by it on the way out."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(settings: Settings) -> tuple[ExitCode, Sequence[str]]:
    """Serve to the end of the drain; the exit code, and what would not end."""
    # The whole server: commands that only call one must not pay for its import.
    from onbelay_server import wiring

    served: list[Serving] = []

    def ready(where: Serving) -> None:
        served.append(where)
        print_ready(settings, where)

    serving = asyncio.ensure_future(wiring.serve(settings, ready=ready))
    told = False
    code = ExitCode.FAILED

    def stop() -> None:
        nonlocal told
        if told:
            # Whatever the drain waits for, the person does not want to.
            os._exit(130)
        told = True
        err().print(Text("Draining; once more to end at once."))
        serving.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await serving
    except asyncio.CancelledError:
        if not told:
            raise
        code = ExitCode.SUCCEEDED
    return code, [name for where in served for name in where.left_behind()]


def print_ready(settings: Settings, serving: Serving) -> None:
    """Where it serves, on stdout at once; with the developer token a command line that works."""
    lines = [f"Onbelay serves gRPC on {serving.grpc_address}"]
    if serving.http_address:
        lines[0] += f" and HTTP on {serving.http_address}"
    if serving.token:
        lines.append(f"Developer token: {serving.token} (kept in {settings.token_path})")
        lines.append(
            f"Try: ONBELAY_SERVER={serving.grpc_address} ONBELAY_API_KEY={serving.token} "
            "onbelay agents list"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _loop_factory() -> Any:
    """uvloop's where it runs: it carries more events; nothing depends on it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@app.command("migrate")
def migrate(database: Database = None, state_dir: StateDir = None) -> None:
    """Bring the database to this version's schema; no server may have it open (SQLite)."""
    from onbelay_server.adapters.sql import migrate as migrate_database

    settings = settings_of(database=database, state_dir=state_dir)
    asyncio.run(migrate_database(settings.database))
    err().print(Text("The database has this version's schema."))
