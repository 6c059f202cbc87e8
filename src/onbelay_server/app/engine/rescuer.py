"""Takes care of runs that lost their owner."""

from __future__ import annotations

import asyncio
import logging
import random

from onbelay_server.app.engine.consequences import conclude, reads_of_end
from onbelay_server.app.engine.dispatcher import Dispatcher
from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import Change, NewEvent, Rows
from onbelay_server.domain.error import Changed, Refusal, Unavailable
from onbelay_server.domain.lifecycle import worker_lost
from onbelay_server.domain.run import Run
from onbelay_server.ports.failpoints import pass_by

log = logging.getLogger(__name__)

_PAGE = 200
_JITTER_SECONDS = 0.05


class Rescuer:
    """Requeues what was running and winds down what was stopping, at start and on a timer."""

    def __init__(self, parts: Parts, dispatcher: Dispatcher) -> None:
        self._parts = parts
        self._dispatcher = dispatcher

    async def run(self) -> None:
        """Look after orphans for as long as the process lives."""
        while True:
            try:
                found = await self.rescue()
            except Unavailable:
                found = 0
            if found < _PAGE:
                await self._parts.clock.sleep(self._parts.pace.lease_seconds / 2)

    async def rescue(self) -> int:
        """One round: how many orphans were found."""
        orphans = await self._parts.store.orphans(
            self._parts.clock.now_us(), alive=[self._parts.owner], limit=_PAGE
        )
        orphans = [run for run in orphans if self._dispatcher.executor(run.id) is None]
        gate = asyncio.Semaphore(self._parts.pace.recovery_at_once)
        await asyncio.gather(*(self._rescue_one(run, gate) for run in orphans))
        if orphans:
            log.info("orphans", extra={"action": "orphans_rescued", "count": len(orphans)})
        return len(orphans)

    async def _rescue_one(self, orphan: Run, gate: asyncio.Semaphore) -> None:
        revision = await self._parts.store.revision(orphan.agent_id, orphan.agent_revision)
        limits = revision.limits if revision is not None else Limits()

        def rescue(rows: Rows, now_us: int) -> Change[Run]:
            run = rows.run(orphan.id)
            is_same = run is not None and (run.owner, run.epoch) == (orphan.owner, orphan.epoch)
            if run is None or not is_same or run.state is not orphan.state:
                raise Changed("somebody else took care of it")
            return conclude(rows, run, lose, now_us, limits)

        def lose(run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
            reason = "the worker was lost"
            return worker_lost(run, now_us, reason, max_attempts=limits.max_attempts)

        reads = reads_of_end(orphan, has_children=bool(orphan.child_count))
        async with gate:
            await self._parts.clock.sleep(random.uniform(0, _JITTER_SECONDS))
            await pass_by("after_orphan_found")
            try:
                await self._parts.store.write(reads, rescue)
            except Refusal:
                return
