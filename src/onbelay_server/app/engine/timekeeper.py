"""Ends what ends by itself: timers fire, approvals and questions expire."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from onbelay_server.app.engine.consequences import conclude, reads_of_end
from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import Change, NewEvent, Rows
from onbelay_server.domain.error import Changed, Refusal, Unavailable
from onbelay_server.domain.lifecycle import ended
from onbelay_server.domain.run import Run, RunError, Wait
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.domain.transition import Trigger
from onbelay_server.domain.waiting import due
from onbelay_server.ports.failpoints import pass_by

_PAGE = 256


class Timekeeper:
    """Writes the end of every wait whose time has come, whoever drives its run."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Keep time for as long as the process lives."""
        alarm = self._parts.alarm
        while True:
            alarm.clear()
            try:
                next_us = await self._end_due()
            except Unavailable:
                next_us = None
            if next_us is not None:
                alarm.set(next_us)
            await alarm.sleep(self._parts.pace.poll_seconds)

    async def _end_due(self) -> int | None:
        """End what is due; when the next will be."""
        store, clock = self._parts.store, self._parts.clock
        waits = await store.due_waits(clock.now_us(), limit=_PAGE)
        await asyncio.gather(*(self._end(wait) for wait in waits))
        return clock.now_us() if len(waits) == _PAGE else await store.next_due_us()

    async def _end(self, wait: Wait) -> None:
        run = await self._parts.store.run(wait.run_id)
        if run is None:
            return

        def end(rows: Rows, now_us: int) -> Change[Run]:
            current = rows.run(wait.run_id)
            if current is None or current.state.is_final or wait not in rows.waits(wait.run_id):
                raise Changed("it ended otherwise")
            ended_by_itself = due(rows, current, wait, now_us)
            if ended_by_itself is None:
                return conclude(rows, current, _waited_too_long, now_us, Limits())
            after, put, events = ended_by_itself
            return Change(result=after, put=[after, *put], delete=[wait], events=events)

        reads = replace(
            reads_of_end(run, has_children=True),
            approvals=[wait.approval_id] if wait.approval_id else [],
            operations=[wait.operation_id] if wait.operation_id else [],
        )
        await pass_by("after_due_before_recorded")
        try:
            await self._parts.store.write(reads, end)
        except Refusal:
            return


def _waited_too_long(run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
    error = RunError(
        reason=FailureReason.TIMED_OUT, message="it has waited for the longest that it may"
    )
    return ended(run, Trigger.BREACH, RunState.FAILED, now_us, error=error)
