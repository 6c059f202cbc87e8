"""Starting and ending the bench's processes: servers, reference servers, clients."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onbelay_server.bench.failure import BenchFailed
from onbelay_server.bench.scratch import scratch_database

START_SECONDS = 60.0
JOB_SECONDS = 900.0
END_SECONDS = 60.0
TOKENS = 8
"""Credentials of as many tenant admins: one caller may hold 256 streams."""
AGENTS = ("emitter", "prompt", "stepper", "waiter", "holder")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that was started here."""

    address: str
    pid: int
    tokens: Sequence[str] = field(default=(), repr=False)

    @property
    def rss_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def reference_server() -> Iterator[Server]:
    """The reference server, until the block ends."""
    command = [sys.executable, "-m", "onbelay_server.bench.reference"]
    with _serving(command, _environment()) as (address, pid):
        yield Server(address, pid)


@contextmanager
def service(
    variant: str,
    *,
    workers: int,
    postgres: str | None = None,
    profile: Path | None = None,
    module: str = "onbelay_server",
) -> Iterator[Server]:
    """The service on an empty state folder, until the block ends. `variant`: full, normal (SQLite)
    or postgres. With `profile` it runs under the profiler, which writes there; else as `module`."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="onbelay-bench-"))
        environment = _environment()
        tokens = [secrets.token_urlsafe(32) for _ in range(TOKENS)]
        tokens_file = Path(folder) / "tokens.json"
        tokens_file.write_text(json.dumps({"tokens": [_entry(*one) for one in enumerate(tokens)]}))
        command = [sys.executable, "-m", module]
        if profile is not None:
            command = [sys.executable, "-m", "onbelay_server.bench.profiling", str(profile)]
        command += ["serve", "--listen", "127.0.0.1:0", "--http", "off", "--state-dir", folder]
        command += ["--workers", str(workers), "--tokens-file", str(tokens_file)]
        command += ["--log-level", "WARNING", "--drain-seconds", "1"]
        for name in AGENTS:
            command += ["--agents", f"onbelay_server.bench.agents:bench_{name}"]
        if variant == "postgres":
            if postgres is None:
                raise BenchFailed("PostgreSQL needs --postgres URL")
            database = stack.enter_context(scratch_database(postgres))
            environment["ONBELAY_DATABASE"] = database  # its password is not for a command line
            _migrate(environment)
        else:
            command += ["--synchronous", variant.upper()]
        address, pid = stack.enter_context(_serving(command, environment))
        yield Server(address, pid, tokens)


def _entry(number: int, token: str) -> dict[str, Any]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {"tenant": "bench", "user": f"bench-{number}", "sha256": digest, "roles": ["admin"]}


def _environment() -> dict[str, str]:
    """Ours, without what it says of a server: that must not change what is measured."""
    return {key: value for key, value in os.environ.items() if not key.startswith("ONBELAY_")}


def _migrate(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "onbelay_server", "migrate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise BenchFailed(f"onbelay migrate failed: {done.stderr.strip()[-500:]}")


@contextmanager
def _serving(command: Sequence[str], environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        try:
            line = _line(process, START_SECONDS)
            if " on " not in line:
                process.kill()
                process.wait()
                errors.seek(0)
                said = errors.read().decode(errors="replace")[-2000:]
                raise BenchFailed(f"{' '.join(command[:4])} did not start: {said}")
            yield line.split(" on ", 1)[1].split()[0], process.pid
        finally:
            _end(process)


def _line(process: subprocess.Popen[str], longest_seconds: float) -> str:
    """The process's next line; empty when it ends, which it does when it takes too long."""
    assert process.stdout is not None
    watchdog = threading.Timer(longest_seconds, process.kill)
    watchdog.start()
    try:
        return process.stdout.readline()
    finally:
        watchdog.cancel()


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


class ClientJob:
    """A client process and the job it was given."""

    def __init__(self, server: Server, job: str, **order: Any) -> None:
        self._job = job
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onbelay_server.bench.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        order |= {"job": job, "address": server.address, "tokens": list(server.tokens)}
        self.say(json.dumps(order))

    def say(self, line: str = "") -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Its next line. Raises BenchFailed when the delivery was wrong or the client broke."""
        line = _line(self._process, JOB_SECONDS)
        if not line:
            raise BenchFailed(f"the client of job {self._job} ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        if "bad_delivery" in answer:
            raise BenchFailed(f"job {self._job}: {answer['bad_delivery']}")
        return answer

    def close(self) -> None:
        """End the process."""
        _end(self._process)
        assert self._process.stdin is not None
        self._process.stdin.close()


@contextmanager
def client_job(server: Server, job: str, **order: Any) -> Iterator[ClientJob]:
    """A client at work, until the block ends."""
    client = ClientJob(server, job, **order)
    try:
        yield client
    finally:
        client.close()


def measured(server: Server, job: str, **order: Any) -> dict[str, Any]:
    """Have a client of its own do a job; its answer. Raises BenchFailed."""
    with client_job(server, job, **order) as client:
        return client.answer()
