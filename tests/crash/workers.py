"""Two workers over one PostgreSQL database, each of which can be cut off from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from onbelay_server.adapters.blobs import MemoryBlobs
from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore
from onbelay_server.adapters.wakeup import LocalWakeup
from onbelay_server.app.engine.alarm import Alarm
from onbelay_server.app.engine.emits import EmitEncoder
from onbelay_server.app.engine.engine import Engine
from onbelay_server.app.engine.parts import Pace, Parts
from onbelay_server.app.engine.sweeper import Retention, Sweeper
from onbelay_server.app.governance.broker import Broker
from onbelay_server.app.operation_token import OperationTokens
from onbelay_server.app.watching.announcer import Announcer
from onbelay_server.domain.agent import HarnessKind
from onbelay_server.domain.error import Unavailable
from onbelay_server.domain.run import Run
from onbelay_server.ports.event_codec import RecordedEvent
from tests.played import PlayedCopy, PlayedHarness, PlayedTools

LEASE_SECONDS = 1.5


class Link:
    """A store behind a network that can be cut: every call then fails."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.is_cut = False
        self.replaced: dict[str, Any] = {}
        """Calls that the test answers itself."""

    def __getattr__(self, name: str) -> Any:
        if name in self.replaced:
            return self.replaced[name]
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **named: Any) -> Any:
            if self.is_cut:
                raise Unavailable("cut off", retry_after_seconds=0.1)
            answer = await found(*args, **named)
            if self.is_cut:
                raise Unavailable("the answer is lost", retry_after_seconds=0.1)
            return answer

        return call


class FrozenClock(SystemClock):
    """The clock of a machine that can be suspended: then it believes that no time passes."""

    def __init__(self) -> None:
        self._frozen_at: float | None = None

    def freeze(self) -> None:
        self._frozen_at = time.monotonic()

    def monotonic(self) -> float:
        return time.monotonic() if self._frozen_at is None else self._frozen_at


class Worker:
    """One process's engine with copies that the test plays."""

    def __init__(self, owner: str, store: SqlStore, codec: ProtoEventCodec) -> None:
        self.codec = codec
        self.store = store
        self.link = Link(store)
        self.clock = FrozenClock()
        self.harness = PlayedHarness()
        self.tools = PlayedTools()
        blobs, wakeup = MemoryBlobs(), LocalWakeup()
        parts = Parts(
            owner=owner,
            store=self.link,
            codec=codec,
            emits=EmitEncoder(codec),
            clock=self.clock,
            wakeup=wakeup,
            blobs=blobs,
            broker=Broker(self.tools),
            tokens=OperationTokens(bytes(32)),
            harnesses={HarnessKind.PYTHON: self.harness},
            pace=Pace(lease_seconds=LEASE_SECONDS, poll_seconds=0.05, drain_seconds=1.0),
            alarm=Alarm(self.clock),
        )
        sweeper = Sweeper(self.link, blobs, self.clock, Retention())
        self.engine = Engine(parts, sweeper)
        announcer = Announcer(codec, wakeup)
        announcer.on_commit(self.engine.committed)
        store.on_commit(announcer.committed)

    async def copy(self, number: int = 1, within_seconds: float = 10.0) -> PlayedCopy:
        """The copy this worker launched as its `number`th."""
        async with asyncio.timeout(within_seconds):
            while len(self.harness.launched) < number:  # noqa: ASYNC110 - the engine's own doing
                await asyncio.sleep(0.01)
        return self.harness.launched[number - 1]

    async def run(self, run_id: str) -> Run:
        run = await self.store.run(run_id)
        assert run is not None
        return run

    async def log(self, run_id: str) -> list[RecordedEvent]:
        found = await self.store.events(run_id, after=0, limit=10_000, max_bytes=2**30)
        return [self.codec.decode(one.body) for one in found]


@asynccontextmanager
async def worker(owner: str, url: str) -> AsyncIterator[Worker]:
    """A worker that is at work."""
    codec = ProtoEventCodec()
    store = await SqlStore.open(url, codec=codec, clock=SystemClock())
    one = Worker(owner, store, codec)
    one.engine.start()
    try:
        yield one
    finally:
        one.link.is_cut = False
        await one.engine.close()
        await store.close()
