"""The engine: everything that moves runs on in this process, started and ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from onbelay_server.app.engine.dispatcher import Dispatcher, Slot
from onbelay_server.app.engine.leases import Leases
from onbelay_server.app.engine.parts import Parts
from onbelay_server.app.engine.rescuer import Rescuer
from onbelay_server.app.engine.sealer import Sealer
from onbelay_server.app.engine.sweeper import Sweeper
from onbelay_server.app.engine.timekeeper import Timekeeper
from onbelay_server.ports.store import Appended

log = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0


class Engine:
    """Starts the parts, passes hints on, and lets go of everything in a drain."""

    def __init__(self, parts: Parts, sweeper: Sweeper) -> None:
        self._parts = parts
        self._dispatcher = Dispatcher(parts)
        self._timekeeper = Timekeeper(parts)
        self._rescuer = Rescuer(parts, self._dispatcher)
        self._leases = Leases(parts, self._dispatcher)
        self._sweeper = sweeper
        self._sealer = Sealer(parts)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin. Orphans of an earlier process are taken care of while others are served."""
        self._parts.wakeup.listen(self._hear)
        loops = {
            "rescuer": self._rescuer.run,
            "dispatcher": self._dispatcher.run,
            "timekeeper": self._timekeeper.run,
            "leases": self._leases.run,
            "sweeper": self._sweeper.run,
            "sealer": self._sealer.run,
        }
        for name, loop in loops.items():
            self._tasks.append(asyncio.create_task(self._keep(name, loop), name=name))

    def reserve(self) -> Slot | None:
        """A slot for a run that is about to be started, if it may begin at once."""
        return self._dispatcher.reserve()

    def committed(self, appended: Sequence[Appended]) -> None:
        """Something was committed by this process: executors look for what others wrote."""
        for one in appended:
            executor = self._dispatcher.executor(one.run.id)
            if executor is not None:
                executor.hint(one.run.last_sequence)
                executor.row_changed(one.run)

    def _hear(self, topics: frozenset[str]) -> None:
        if "ready" in topics:
            self._dispatcher.wake()

    async def drain(self) -> None:
        """Give every run back. Calls that may not be repeated get the grace to end."""
        try:
            async with asyncio.timeout(self._parts.pace.drain_seconds):
                await self._dispatcher.drain()
        except TimeoutError:
            log.warning("drain ran out of time", extra={"action": "drain_timeout"})

    async def close(self) -> None:
        """End everything. What was not given back is left to its lease's end."""
        await self._dispatcher.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for harness in self._parts.harnesses.values():
            await harness.close()

    async def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """A loop of the engine must not end by itself: what breaks it is said, and it goes on."""
        while True:
            try:
                await loop()
            except Exception:
                log.exception("the %s broke", name, extra={"action": "loop_broke", "loop": name})
            await self._parts.clock.sleep(_RESTART_SECONDS)
