"""What `onbelay doctor` looks at: one function a question, each answered by Findings."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from onbelay_client import OnbelayError, Unavailable, connect
from onbelay_client.protojson import to_datetime
from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.credentials.tokens_file import TokensFile, TokensFileError
from onbelay_server.adapters.sql import SqlStore, StoreError
from onbelay_server.adapters.sql.schema import head
from onbelay_server.adapters.sql.snapshot import SQLITE_VERSION, checkpoints_are_safe, look
from onbelay_server.cli.backup import without_password
from onbelay_server.cli.outcome import line_of_error
from onbelay_server.cli.terminal import size
from onbelay_server.config import Settings, split_address
from onbelay_server.domain.error import DomainError

LITTLE_SPACE_BYTES = 1024**3
NO_SPACE_BYTES = 50 * 1024**2
SKEW_SECONDS = 5.0
CLEANUP_PACKAGES = ("polars", "rapidfuzz", "numpy", "scipy", "matplotlib", "jinja2")


class Verdict(StrEnum):
    """How good it is."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question."""

    name: str
    verdict: Verdict
    text: str


def check_python() -> Iterator[Finding]:
    """The interpreter, and what data-cleanup needs."""
    version = sys.version_info[:2]
    text = f"{sys.version.split()[0]}"
    fits = (3, 11) <= version < (3, 14)
    yield Finding(
        "python",
        Verdict.OK if fits else Verdict.WRONG,
        text if fits else f"{text}: 3.11, 3.12 or 3.13 is needed",
    )
    absent = [name for name in CLEANUP_PACKAGES if importlib.util.find_spec(name) is None]
    yield Finding(
        "data-cleanup",
        Verdict.NOTE if absent else Verdict.OK,
        f"not installed: {', '.join(absent)} (extra `cleanup`)"
        if absent
        else "libraries are there",
    )


def check_sqlite() -> Iterator[Finding]:
    """The SQLite library."""
    if checkpoints_are_safe():
        yield Finding("sqlite", Verdict.OK, SQLITE_VERSION)
        return
    yield Finding(
        "sqlite",
        Verdict.NOTE,
        f"{SQLITE_VERSION}: before 3.51.3 a second program that checkpoints can corrupt the "
        "write-ahead log; only the server may write, copy with `onbelay backup`",
    )


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether the database can be reached and has this version's schema."""
    path = settings.sqlite_path
    try:
        if path is None:
            asyncio.run(_open_database(settings))
            text = f"{without_password(settings.database)}, schema {head()}"
            yield Finding("database", Verdict.OK, text)
            return
        if not path.exists():
            yield Finding("database", Verdict.NOTE, f"{path} is not there yet: `serve` makes it")
            return
        found = look(path)
    except (StoreError, DomainError, OSError) as error:
        yield Finding("database", Verdict.WRONG, str(error))
        return
    text = f"{path}, {size(found.size_bytes)}, {found.journal_mode}, schema {found.revision}"
    if found.revision == head():
        yield Finding("database", Verdict.OK, text)
    else:
        wanted = f"{text}; this version needs {head()}: `onbelay migrate`"
        yield Finding("database", Verdict.WRONG, wanted)


def check_secrets(settings: Settings) -> Iterator[Finding]:
    """Whether others on this machine can read what they must not."""
    paths = [settings.state_dir, settings.token_path]
    paths += [settings.operation_key_path, settings.page_key_path]
    paths += [path for path in (settings.tokens_file, settings.tls_key) if path is not None]
    if settings.sqlite_path is not None:
        paths.append(settings.sqlite_path)
    open_to_others: list[str] = []
    for path in paths:
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Finding("permissions", Verdict.WRONG, f"{path}: {error.strerror}")
            continue
        # A folder that others may enter is harmless while they may not write in it.
        forbidden = 0o022 if path.is_dir() else 0o077
        if stat.S_IMODE(mode) & forbidden:
            open_to_others.append(f"{path} ({stat.S_IMODE(mode):o})")
    if open_to_others:
        text = f"others may use {', '.join(open_to_others)}: chmod go= it"
        yield Finding("permissions", Verdict.WRONG, text)
    else:
        yield Finding("permissions", Verdict.OK, f"{settings.state_dir}")


def check_tokens_file(settings: Settings) -> Iterator[Finding]:
    """Whether `serve` would understand the tokens file, if there is to be one."""
    path = settings.tokens_file
    if path is None:
        return
    try:
        tenants = TokensFile(path, SystemClock()).tenants()
    except TokensFileError as error:
        yield Finding("tokens file", Verdict.WRONG, str(error))
    else:
        yield Finding("tokens file", Verdict.OK, f"{path}, tenants: {', '.join(sorted(tenants))}")


def check_tls(settings: Settings) -> Iterator[Finding]:
    """Whether certificate and key, if there are to be some, can be read and belong together."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        return
    for path in (cert, key):
        try:
            path.read_bytes()
        except OSError as error:
            yield Finding("tls", Verdict.WRONG, f"{path}: {error.strerror}")
            return
    try:
        # An empty password: without one a key that has one would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError:
        text = f"{cert} and {key} do not fit, are not PEM, or the key has a password"
        yield Finding("tls", Verdict.WRONG, text)
    else:
        yield Finding("tls", Verdict.OK, f"{cert}")


def check_space(settings: Settings) -> Iterator[Finding]:
    """Whether the state folder's disk has room."""
    folder = settings.state_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    verdict = Verdict.OK
    if free_bytes < LITTLE_SPACE_BYTES:
        verdict = Verdict.WRONG if free_bytes < NO_SPACE_BYTES else Verdict.NOTE
    yield Finding("disk", verdict, f"{size(free_bytes)} free at {folder}")


def check_ports(settings: Settings, *, server_answers: bool) -> Iterator[Finding]:
    """Whether `serve` could bind its ports; taken ones are right when a server answers."""
    for name, address in (("grpc port", settings.listen), ("http port", settings.http)):
        if address is None:
            continue
        problem = _bind_problem(*split_address(address))
        if problem is None:
            yield Finding(name, Verdict.OK, f"{address} is free")
        elif server_answers:
            yield Finding(name, Verdict.OK, f"{address} is taken, and a server answers")
        else:
            yield Finding(name, Verdict.WRONG, f"{address}: {problem}")


def check_server(
    server: str, token: str, ca_cert: Path | None, *, was_named: bool
) -> Iterator[Finding]:
    """Whether a server answers, as whom it takes the caller, and whether its clock agrees."""
    absent = Verdict.WRONG if was_named else Verdict.NOTE
    try:
        with connect(server, token, ca_cert=ca_cert, patience_seconds=1) as client:
            before = datetime.now(UTC)
            reply = client.caller()
            after = datetime.now(UTC)
    except Unavailable as error:
        yield Finding("server", absent, f"{server}: {line_of_error(error)}")
        return
    except (OnbelayError, ValueError, OSError) as error:
        text = line_of_error(error) if isinstance(error, OnbelayError) else str(error)
        yield Finding("server", Verdict.WRONG, f"{server}: {text}")
        return
    caller = reply.caller
    text = f"{server}, version {reply.server.version}, as {caller.principal} of {caller.tenant}"
    yield Finding("server", Verdict.OK, text)
    middle = before + (after - before) / 2
    skew_seconds = (to_datetime(reply.server.server_time) - middle).total_seconds()
    wrong = abs(skew_seconds) > SKEW_SECONDS
    yield Finding(
        "clock", Verdict.WRONG if wrong else Verdict.OK, f"{skew_seconds:+.2f} s from the server's"
    )


async def _open_database(settings: Settings) -> None:
    store = await SqlStore.open(settings.database, codec=ProtoEventCodec(), clock=SystemClock())
    await store.close()


def _bind_problem(host: str, port: int) -> str | None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None
