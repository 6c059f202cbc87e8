"""Real servers for tests: in this process, or as a child that can be killed with -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from onbelay_server.config import Settings
from onbelay_server.wiring import running
from tests import hostile_wakeup
from tests.recorder import Recorder, Recording

AGENTS = ("asker", "counter", "crasher", "emitter", "hello", "sleeper", "stubborn", "toolsmith")
_HERE = Path(__file__).resolve().parent
_SOURCES = (".", "src", "gen/python", "clients/python")
_START_SECONDS = 20.0


def targets(names: Sequence[str] = AGENTS) -> list[str]:
    """What `--agents` takes for the agents of tests/agents."""
    return [f"{_HERE / 'agents' / name}.py:{name}" for name in names]


@dataclass(slots=True)
class Server:
    """A server that answers, and one caller who may do everything."""

    address: str
    token: str
    state_dir: Path
    client: Recorder
    process: asyncio.subprocess.Process | None = None

    @property
    def database(self) -> str:
        return f"sqlite:///{self.state_dir / 'onbelay.db'}"

    async def kill(self) -> None:
        """End the child process as a power cut would."""
        assert self.process is not None, "only a child can be killed"
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def serving(
    state_dir: Path,
    recording: Recording | None = None,
    *,
    agents: Sequence[str] = AGENTS,
    extra: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Server]:
    """A server in this process, drained at the end. `extra` names agents as `--agents` does.

    Whoever uses it judges what it left, as `tests.grpc.spine_server.judged_server` does."""
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "http": None,
        "state_dir": state_dir,
        "agents": [*targets(agents), *extra],
        "synchronous": "NORMAL",
        "drain_seconds": 2.0,
    }
    async with AsyncExitStack() as last, AsyncExitStack() as first:
        # The channel is closed after the server, so that a client sees how it drains.
        where = await first.enter_async_context(running(Settings(**(values | settings))))
        assert where.token is not None
        channel = grpc.aio.insecure_channel(where.grpc_address)
        last.push_async_callback(channel.close)
        client = Recorder(channel, where.token, recording or Recording())
        yield Server(where.grpc_address, where.token, state_dir, client)


@asynccontextmanager
async def child_server(
    state_dir: Path,
    recording: Recording | None = None,
    *,
    agents: Sequence[str] = AGENTS,
    options: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """A server in a process of its own, killed at the end unless it has ended."""
    root = _HERE.parent
    paths = os.pathsep.join(str(root / source) for source in _SOURCES)
    module = "tests.hostile_wakeup" if hostile_wakeup.wanted() else "onbelay_server"
    command = [sys.executable, "-m", module, "serve", "--listen", "127.0.0.1:0"]
    command += ["--http", "off", "--state-dir", str(state_dir), *options]
    for target in targets(agents):
        command += ["--agents", target]
    environment = {name: value for name, value in os.environ.items() if "ONBELAY" not in name}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment | {"PYTHONPATH": paths} | hostile_wakeup.wanted(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        address = await _address(process)
        token = (state_dir / "developer-token").read_text().strip()
        async with grpc.aio.insecure_channel(address) as channel:
            client = Recorder(channel, token, recording or Recording())
            yield Server(address, token, state_dir, client, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where it serves, read from the line it prints once it does."""
    assert process.stdout is not None
    async with asyncio.timeout(_START_SECONDS):
        while line := await process.stdout.readline():
            words = line.decode().split()
            if "gRPC" in words:
                return words[words.index("on") + 1]
    raise AssertionError(f"the server ended with {await process.wait()} before it served")
