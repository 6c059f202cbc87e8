"""A server that is killed and started again on the same files, address and clients."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore
from tests.checker import Final, judge
from tests.crash.nursery import Nursery, is_alive
from tests.effect_service import EffectService
from tests.recorder import Recorder, Recording

AGENTS = Path(__file__).resolve().parents[1] / "agents"
_START_SECONDS = 20.0
_EFFECT_BOUND_SECONDS = 2.0
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Arena:
    """One database, one address, and the server that is there at the moment, if any."""

    def __init__(
        self,
        nursery: Nursery,
        state_dir: Path,
        service: EffectService,
        agents: Sequence[str],
        options: Sequence[str],
    ) -> None:
        self._nursery = nursery
        self.state_dir = state_dir
        self.service = service
        self.recording = Recording()
        self.address = f"127.0.0.1:{_free_port()}"
        self._arguments = [
            *("serve", "--listen", self.address, "--http", "off", "--state-dir", str(state_dir)),
            *("--synchronous", "NORMAL", "--drain-seconds", "2", *options),
            *("--log-level", "WARNING"),
        ]
        for agent in agents:
            self._arguments += ["--agents", str(AGENTS / agent)]
        self._channels: list[grpc.aio.Channel] = []
        self._client: Recorder | None = None
        self.pid = 0
        self.kills = 0

    @property
    def client(self) -> Recorder:
        assert self._client is not None, "start first"
        return self._client

    @property
    def log(self) -> Path:
        """What the servers say on their standard error."""
        return self.state_dir / "server.log"

    async def start(self, failpoints: str = "", **environment: str) -> None:
        """A server that answers, or one that a failpoint killed before it could."""
        variables = {"ONBELAY_FAILPOINTS": failpoints, "ONBELAY_LEASE_SECONDS": "4", **environment}
        self.pid = await self._nursery.start(self._arguments, self.log, variables)
        host, _, port = self.address.partition(":")
        give_up = time.monotonic() + _START_SECONDS
        while is_alive(self.pid):
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                assert time.monotonic() < give_up, self.log.read_text()[-4000:]
                await asyncio.sleep(0.02)
                continue
            writer.close()
            break
        if self._client is None:
            self._client = self.another_client()

    def another_client(self) -> Recorder:
        """A client with a connection of its own; the recording is the same."""
        options = (*_RECONNECT, ("grpc.use_local_subchannel_pool", 1))
        channel = grpc.aio.insecure_channel(self.address, options=options)
        self._channels.append(channel)
        token = (self.state_dir / "developer-token").read_text().strip()
        return Recorder(channel, token, self.recording)

    @property
    def is_alive(self) -> bool:
        return self.pid != 0 and is_alive(self.pid)

    async def kill(self) -> int:
        """End it as a power cut would, unless a failpoint has; its exit code."""
        pid, self.pid = self.pid, 0
        self.kills += 1
        return await self._nursery.end(pid)

    async def died(self, timeout_seconds: float) -> bool:
        """Whether a failpoint killed it within that time."""
        give_up = time.monotonic() + timeout_seconds
        while self.is_alive and time.monotonic() < give_up:  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.02)
        return not self.is_alive

    async def close(self) -> None:
        if self.pid:
            await self.kill()
        for channel in self._channels:
            await channel.close()

    # ---- what is left --------------------------------------------------------------------------

    async def final(self) -> Final:
        """What the database holds; the server must be gone."""
        store = await SqlStore.open(
            f"sqlite:///{self.state_dir / 'onbelay.db'}",
            codec=ProtoEventCodec(),
            clock=SystemClock(),
        )
        try:
            return await Final.of(store)
        finally:
            await store.close()

    async def broken(self, final: Final) -> list[str]:
        """Every promise that was broken, here or outside."""
        return judge(self.recording, final) + judge_effects(final, await self.service.effects())


def judge_effects(final: Final, effects: Any) -> list[str]:
    """What was declared to happen once happened once; what was recorded as done was done."""
    broken = []
    for key, count in sorted(effects.counts.items()):
        run_id, _, name = key.partition("/")
        run = final.runs.get(run_id)
        if run is not None and effects.kinds[key] in ("once", "charge", "put") and count != 1:
            broken.append(f"{run_id}: {name} happened {count} times")
        if run is not None and run.stop is not None:
            late = effects.last_at[key] - run.stop.request_us / 1e6
            if late > _EFFECT_BOUND_SECONDS:
                broken.append(f"{run_id}: {name} happened {late:.1f} s after the stop")
    for key, keys in effects.keys.items():
        if effects.kinds[key] == "put" and len(keys) != 1:
            broken.append(f"{key} came with {len(keys)} idempotency keys")
    for run_id, log in final.logs.items():
        for name in _done(log):
            if effects.counts.get(f"{run_id}/{name}", 0) < 1:
                broken.append(f"{run_id}: {name} is recorded as done and never happened")
    return broken


def _done(log: Sequence[Any]) -> list[str]:
    """The declared-once calls that are recorded as done, by their name outside."""
    asked: dict[str, str] = {}
    done = []
    for event in log:
        kind = event.WhichOneof("payload")
        if kind == "step_started" and event.step_started.name.startswith("once-"):
            asked[event.step_id] = event.step_started.name
        elif (
            kind == "step_finished"
            and event.step_id in asked
            and not event.step_finished.HasField("error")
        ):
            done.append(asked[event.step_id])
    return done


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def arena(
    nursery: Nursery,
    state_dir: Path,
    service: EffectService,
    *,
    agents: Sequence[str] = ("mixed.py:mixed", "mixed.py:mixed_child"),
    options: Sequence[str] = (),
) -> AsyncIterator[Arena]:
    """A place for one server after another; none is started yet."""
    state_dir.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once
    place = Arena(nursery, state_dir, service, agents, options)
    try:
        yield place
    finally:
        await place.close()
