"""A PostgreSQL cluster that belongs to one test session: made, checked, stopped and removed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.requirement import find_program

_START_SECONDS = 30
_STOP_SECONDS = 20


class PostgresError(Exception):
    """A server program failed, or a server that is not ours answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresCluster:
    """A running cluster; anyone on this machine may connect as `postgres` without a password."""

    programs: Path
    folder: Path
    port: int
    pid: int

    @property
    def data(self) -> Path:
        """The cluster's data directory."""
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        """Address of one database, as `--database` takes it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str) -> str:
        """Run one SQL statement in the database `postgres` and return what it printed."""
        command = [str(self.programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
        return _output([*command, "-d", self.url(), "-c", statement])

    def stop(self) -> None:
        """End the server by the process id that was read at its start, then remove its files."""
        os.kill(self.pid, signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        while _lives(self.pid):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGQUIT)
                break
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)


def find_postgres() -> Path | None:
    """Folder of the server programs: that of `initdb` on PATH, else the newest Debian has."""
    found = find_program("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(versions, key=lambda path: path.parent.name, reverse=True)
    for folder in candidates:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres", "psql")):
            return folder
    return None


def start_postgres(programs: Path) -> PostgresCluster:
    """Make a cluster on a free port and prove that the server which answers there is this one.

    Raises PostgresError when a program fails or a foreign server answers.
    """
    folder = Path(tempfile.mkdtemp(prefix="onbelay-pg-"))
    account = _account()
    if account is not None:
        shutil.chown(folder, account, account)
    data = folder / "data"
    try:
        # No syncs: these tests kill processes, never the machine.
        initdb = ["initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-N"]
        _server_program(programs, [*initdb, "-D", str(data)])
        port = _free_port()
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        start = ["pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-D", str(data)]
        _server_program(programs, [*start, "-l", str(folder / "log"), "-o", options])
    except PostgresError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    cluster = PostgresCluster(programs=programs, folder=folder, port=port, pid=pid)
    # Tests create and drop: before the first of them, make sure whose data that would touch.
    answered = cluster.run("SHOW data_directory")
    if Path(answered) != data:
        cluster.stop()
        raise PostgresError(f"the server on port {port} serves {answered}, not {data}")
    return cluster


def _account() -> str | None:
    # The server refuses to run as root; everyone else runs it as who they are.
    return "postgres" if os.geteuid() == 0 else None


def _server_program(programs: Path, command: list[str]) -> None:
    _output([str(programs / command[0]), *command[1:]], account=_account())


def _output(command: list[str], *, account: str | None = None) -> str:
    # Output goes through a file: a server started by pg_ctl would keep a pipe open for its life.
    with tempfile.TemporaryFile("w+") as out:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd="/",
            check=False,
            timeout=_START_SECONDS * 2,
            user=account,
            group=account,
            extra_groups=[] if account else None,
        )
        out.seek(0)
        text = out.read().strip()
    if done.returncode != 0:
        raise PostgresError(f"{Path(command[0]).name} ended with {done.returncode}: {text}")
    return text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A server whose parent never reaps it stays in the table after its end.
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
