"""Ends what ends by itself: timers fire, approvals and questions expire."""

from __future__ import annotations

import asyncio

from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.change import Change, Entity, Reads, Rows
from onbelay_server.domain.error import Changed, Refusal, Unavailable
from onbelay_server.domain.run import Wait
from onbelay_server.domain.waiting import due

_PAGE = 256


class Timekeeper:
    """Writes the end of every wait whose time has come, whoever drives its run."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._made = asyncio.Event()

    def wake(self) -> None:
        """A wait with an end was made."""
        self._made.set()

    async def run(self) -> None:
        """Keep time for as long as the process lives."""
        while True:
            self._made.clear()
            try:
                pause = await self._end_due()
            except Unavailable:
                pause = self._parts.pace.poll_seconds
            try:
                async with asyncio.timeout(pause):
                    await self._made.wait()
            except TimeoutError:
                pass

    async def _end_due(self) -> float:
        """End what is due; seconds until the next may be."""
        store, clock = self._parts.store, self._parts.clock
        waits = await store.due_waits(clock.now_us(), limit=_PAGE)
        await asyncio.gather(*(self._end(wait) for wait in waits))
        if len(waits) == _PAGE:
            return 0.0
        next_us = await store.next_due_us()
        if next_us is None:
            return self._parts.pace.poll_seconds
        return min(max((next_us - clock.now_us()) / 1e6, 0.0), self._parts.pace.poll_seconds)

    async def _end(self, wait: Wait) -> None:
        def end(rows: Rows, now_us: int) -> Change[None]:
            run = rows.run(wait.run_id)
            if run is None or run.state.is_final or wait not in rows.waits(wait.run_id):
                raise Changed("it ended otherwise")
            approval = rows.approval(wait.approval_id) if wait.approval_id else None
            after, events, expired = due(run, wait, approval, now_us)
            put: list[Entity] = [after] if expired is None else [after, expired]
            return Change(result=None, put=put, delete=[wait], events=events)

        reads = Reads(
            runs=[wait.run_id],
            open_of=[wait.run_id],
            approvals=[wait.approval_id] if wait.approval_id else [],
        )
        try:
            await self._parts.store.write(reads, end)
        except Refusal:
            return
