"""The last words of an epoch: how a run ends, is held, or goes to another worker."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from onbelay_server.app.engine.casefile import CaseFile
from onbelay_server.app.engine.consequences import LastWord, conclude, reads_of_end
from onbelay_server.app.engine.endings import held
from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.error import Lost, Unavailable
from onbelay_server.domain.event import LogWritten
from onbelay_server.domain.lifecycle import ended, fence, given_back, worker_lost
from onbelay_server.domain.pausing import paused
from onbelay_server.domain.run import Pause, Run, RunError
from onbelay_server.domain.state import FailureReason, LogLevel, RunState
from onbelay_server.domain.transition import Trigger

T = TypeVar("T")

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.25


class Fate:
    """Writes what an executor decides about its run as a whole.

    Each method gives the run as it is afterwards: STOPPED where a stop was committed before. All
    raise Lost when the run belongs to another by now.
    """

    def __init__(self, parts: Parts, case: CaseFile, fence_at: float) -> None:
        self._parts = parts
        self._case = case
        self._run = case.run
        self.fence_at = fence_at
        """Monotonic time after which nothing may be written: the lease may be another's then."""
        self._is_spent = True
        """Whether the store takes the time since the claim for the run's."""

    async def lose(self, reason: str) -> Run:
        """This attempt is lost: the run waits for its next, if it has one left."""
        attempts = self._case.revision.limits.max_attempts
        return await self._write(
            lambda run, at: worker_lost(run, at, reason, max_attempts=attempts)
        )

    async def fail(self, reason: FailureReason, message: str) -> Run:
        """It cannot go on."""
        error = RunError(reason=reason, message=message)
        return await self._write(
            lambda run, at: ended(run, Trigger.RAISE, RunState.FAILED, at, error=error)
        )

    async def breach(self, error: RunError) -> Run:
        """It passed one of its limits."""
        return await self._write(
            lambda run, at: ended(run, Trigger.BREACH, RunState.FAILED, at, error=error)
        )

    async def hold(self, recorded: str, found: str) -> Run:
        """It does not fit its journal, which is of `recorded`."""

        def hold(run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
            pause = Pause(request_us=now_us, recorded=recorded, found=found)
            return held(run, pause, f"its journal is of {recorded}", now_us)

        return await self._write(hold)

    async def kill(self, unstoppable: tuple[str, ...]) -> Run:
        """The kill deadline of its stop has come; `unstoppable` names what would not end."""
        return await self._write(lambda run, at: worker_lost(run, at, "killed"), unstoppable)

    async def give_back(self) -> Run:
        """The worker drains."""

        def back(run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
            after, event = given_back(run, now_us, "the worker drains")
            return after, [event]

        return await self._write(back)

    async def pause(self) -> Run:
        """PauseRun takes effect, unless it was taken back meanwhile."""

        def pause(run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
            if run.pause is None:
                return run, []
            after, event = paused(run, now_us)
            return after, [event]

        return await self._write(pause)

    async def warn(self, message: str) -> None:
        """Say it loudly, to the operator and in the run's log."""
        log.warning(message, extra={"action": "history_limit_near", "run_id": self._run.id})

        def warn(rows: Rows, now_us: int) -> Change[None]:
            fence(rows.run(self._run.id), self._parts.owner, self._run.epoch)
            event = LogWritten(level=LogLevel.WARNING, message=message)
            return Change(result=None, events=[NewEvent(self._run.id, event)])

        reads = Reads(runs=[self._run.id])
        await self.insist(lambda: self._parts.store.write(reads, warn))

    async def count_time(self, *, is_spent: bool) -> None:
        """The time limit runs from now on, or has not run since the claim: nothing is spent while
        a run waits for a place."""
        if is_spent == self._is_spent:
            return

        def count(rows: Rows, now_us: int) -> Change[None]:
            run = fence(rows.run(self._run.id), self._parts.owner, self._run.epoch)
            return Change(result=None, put=[replace(run, claim_us=now_us if is_spent else None)])

        reads = Reads(runs=[self._run.id])
        await self.insist(lambda: self._parts.store.write(reads, count))
        self._is_spent = is_spent

    async def insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write, again and again while the database is away and the lease holds."""
        while True:
            try:
                return await write()
            except Unavailable:
                if self._parts.clock.monotonic() >= self.fence_at:
                    raise Lost("the lease ended while the database was away") from None
                await self._parts.clock.sleep(_RETRY_SECONDS)

    async def _write(self, decide: LastWord, unstoppable: tuple[str, ...] = ()) -> Run:
        def unit(rows: Rows, now_us: int) -> Change[Run]:
            run = fence(rows.run(self._run.id), self._parts.owner, self._run.epoch)
            limits = self._case.revision.limits
            return conclude(rows, run, decide, now_us, limits, unstoppable)

        reads = reads_of_end(self._run, has_children=self._case.journal.has_children)
        committed = await self.insist(lambda: self._parts.store.write(reads, unit))
        return committed.result
