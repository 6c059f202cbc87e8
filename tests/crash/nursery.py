"""A process that has imported the server once and forks a real one each time it is asked.

Starting Python and importing everything takes seconds; a test that kills a server a hundred times
has not got them. What is forked is the same server by the same command line, in a process of its
own: no thread, loop or connection exists before the fork.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests import hostile_wakeup

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = (".", "src", "gen/python", "clients/python")


def _serve_requests() -> None:
    """One line a request: pid of the server it became; `wait` lines are answered with its end."""
    hostile_wakeup.everywhere()
    from onbelay_server import wiring  # noqa: F401 - imported before the fork, once for all
    from onbelay_server.cli.application import main

    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, state = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(state), flush=True)
            continue
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        _become(order)
        try:
            main()
        finally:
            os._exit(0)


def _become(order: dict[str, object]) -> None:
    """The child: its own streams, arguments and environment."""
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    environment = order["environment"]
    assert isinstance(environment, dict)
    os.environ.update(environment)
    arguments = order["arguments"]
    assert isinstance(arguments, list)
    sys.argv = ["onbelay", *arguments]


class Nursery:
    """Starts servers. One at a time asks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lock = asyncio.Lock()

    async def start(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> int:
        """A server with this command line; its process id."""
        order = {"arguments": arguments, "log": str(log), "environment": dict(environment)}
        return await self._ask(order)

    async def end(self, pid: int) -> int:
        """Kill it and say with which code it ended; the negative number of a signal."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return await self._ask({"wait": pid})

    async def _ask(self, order: Mapping[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            return int(await self._process.stdout.readline())


@asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """A nursery for as long as the block lasts; its servers are ended by who started them."""
    paths = os.pathsep.join(str(_ROOT / source) for source in _SOURCES)
    clean = {name: value for name, value in os.environ.items() if "ONBELAY" not in name}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.crash.nursery",
        cwd=_ROOT,
        env=clean | {"PYTHONPATH": paths} | hostile_wakeup.wanted(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield Nursery(process)
    finally:
        process.stdin.close()
        await process.wait()


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


if __name__ == "__main__":
    _serve_requests()
