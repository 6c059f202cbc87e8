"""Drives one claimed run: the only caller of the harness and the only writer of its progress."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from onbelay_agent.protocol import Begun, Ended, Pulse, Ready, Recorded, Stop, Suspend
from onbelay_server.app.engine.casefile import CaseFile
from onbelay_server.app.engine.inbox import Inbox
from onbelay_server.app.engine.intents import Intents
from onbelay_server.app.engine.parts import Parts
from onbelay_server.app.engine.toolbox import Toolbox
from onbelay_server.app.engine.turn import Item, Outcome, Turn
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.error import Lost as LostLease
from onbelay_server.domain.error import Refusal, Unavailable
from onbelay_server.domain.event import ApprovalDecided, StateChanged
from onbelay_server.domain.lifecycle import ended, fence, given_back, worker_lost
from onbelay_server.domain.run import Run, RunError
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.domain.stopping import wound_down
from onbelay_server.domain.transition import Trigger
from onbelay_server.domain.waiting import concluded
from onbelay_server.ports.event_codec import RecordedEvent, UnencodableEvent
from onbelay_server.ports.harness import Copy, Launch, Lost

T = TypeVar("T")
LastWord = Callable[[Run, int], tuple[Run, list[NewEvent]]]

log = logging.getLogger(__name__)

_UNWIND_SECONDS = 5.0
"""How long a suspended copy may take to end before it is killed."""
_RETRY_SECONDS = 0.25


class Executor:
    """One run in one epoch, from its claim until the run ends, waits or belongs to another."""

    def __init__(self, parts: Parts, case: CaseFile) -> None:
        self._parts = parts
        self._case = case
        self._run = case.run
        self._position = case.position
        self._inbox = Inbox()
        self._intents = Intents(case.run, case.revision, parts.broker, case.files, case.kept)
        self._toolbox = Toolbox(parts.broker, parts.clock, case.put_blob, self._inbox.put)
        self._copy: Copy | None = None
        self._is_over = False
        self._unwind_by: float | None = None
        self._grace_until: float | None = None
        self._kill_at: float | None = None
        self._fence_at = parts.clock.monotonic() + parts.pace.lease_seconds
        self._is_draining = False
        self._held_end: Ended | None = None
        self._once: set[str] = set()
        """Steps this copy was let begin that may not be repeated."""

    @property
    def run_id(self) -> str:
        return self._run.id

    @property
    def epoch(self) -> int:
        return self._run.epoch

    # ---- what others tell it -----------------------------------------------------------------

    def hint(self, last_sequence: int) -> None:
        """The run's log may have grown."""
        self._inbox.hint(last_sequence)

    def renewed(self, fence_at: float) -> None:
        """The lease holds until `fence_at` of the monotonic clock."""
        self._fence_at = fence_at

    def recheck(self) -> None:
        """Something about the run may have changed: read the log, whoever wrote it."""
        self._inbox.recheck()

    def give_back(self) -> None:
        """The process drains: let go of the run at the next point where nothing is lost."""
        self._is_draining = True
        self._inbox.recheck()

    # ---- driving -----------------------------------------------------------------------------

    async def drive(self) -> None:
        """Run the agent. Returns when this process has nothing more to do with the run."""
        try:
            await self._launch()
            while not self._is_over:
                await self._inbox.wait(self._next_deadline())
                await self._take_up()
        finally:
            await self._toolbox.cancel()
            if self._copy is not None:
                await self._copy.kill()

    async def _launch(self) -> None:
        harness = self._parts.harnesses.get(self._case.revision.harness)
        reason = "this server runs no such agents"
        if harness is not None:
            reason = harness.check(self._case.revision) or ""
        if harness is None or reason:
            await self._fail(FailureReason.AGENT_NOT_FOUND, reason)
            return
        launch = Launch(
            revision=self._case.revision,
            start=self._case.start,
            hear=self._inbox.put,
            put_blob=self._case.put_blob,
            get_blob=self._case.get_blob,
        )
        self._copy = await harness.launch(launch)

    def _next_deadline(self) -> float:
        """Seconds until the executor must look up by itself."""
        now = self._parts.clock.monotonic()
        marks = [now + self._parts.pace.poll_seconds, self._fence_at]
        marks += [
            mark for mark in (self._unwind_by, self._grace_until, self._kill_at) if mark is not None
        ]
        return max(0.0, min(marks) - now)

    async def _take_up(self) -> None:
        now = self._parts.clock.monotonic()
        if now >= self._fence_at:
            log.warning("lease lost", extra={"action": "lease_lost", "run_id": self.run_id})
            self._is_over = True
            return
        try:
            if self._inbox.is_behind(self._position):
                await self._catch_up()
            said = self._inbox.take()
            if self._unwind_by is not None:
                has_ended = any(isinstance(one, Ended | Lost) for one in said)
                is_late = self._is_draining or now >= self._unwind_by
                self._is_over = self._is_over or has_ended or is_late
                return
            items = self._ready([one for one in said if not isinstance(one, Lost | Ready | Pulse)])
            if items:
                await self._commit(items)
            gone = next((one for one in said if isinstance(one, Lost)), None)
            if gone is not None and not self._is_over:
                await self._copy_gone(gone)
            if self._is_draining and not self._is_over:
                await self._give_back_when_safe()
        except Refusal:
            self._is_over = True
        except UnencodableEvent as problem:
            await self._fail(FailureReason.HARNESS_ERROR, f"the agent's words: {problem}")
        if not self._is_over:
            await self._keep_deadlines()

    def _ready(self, items: list[Item]) -> list[Item]:
        """What can be written now: the end of a stopping copy waits for the tools in flight."""
        if self._held_end is not None:
            items = [*items, self._held_end]
            self._held_end = None
        is_early = self._grace_until is not None and self._toolbox.is_busy
        if is_early and items and isinstance(items[-1], Ended):
            self._held_end = items[-1]
            return items[:-1]
        return items

    # ---- the log -----------------------------------------------------------------------------

    async def _catch_up(self, through: int | None = None) -> None:
        """Read what others appended: decisions, timers, a stop."""
        while not self._is_over:
            events = await self._parts.store.events(
                self.run_id, after=self._position, limit=500, max_bytes=2**20, through=through
            )
            if not events:
                return
            for event in events:
                self._observe(self._parts.codec.decode(event.body))

    def _observe(self, event: RecordedEvent) -> None:
        """Take one event of the log, whoever wrote it, and tell the copy what it awaits."""
        self._position = event.sequence
        if event.epoch > self.epoch:
            self._is_over = True
            return
        record = self._case.journal.read(event)
        if record is not None and record.type == "finished" and self._copy is not None:
            self._copy.send(Recorded(record=record))
        match event.payload:
            case StateChanged(to_state=RunState.STOPPING):
                self._begin_stop(event.payload.reason)
            case ApprovalDecided() if self._case.journal.may_retry(event.step_id):
                self.give_back()  # the step begins again in a new copy

    async def _commit(self, items: Sequence[Item]) -> None:
        """Write what the copy said as one unit, then tell it what is recorded."""
        turn = Turn(
            items,
            run=self._run,
            intents=self._intents,
            journal=self._case.journal,
            codec=self._parts.codec,
            kept=self._case.kept,
        )
        committed = await self._insist(lambda: self._parts.store.write(turn.reads, turn.decide))
        appended = committed.runs.get(self.run_id)
        events = appended.events if appended is not None else ()
        if events and events[0].sequence > self._position + 1:
            await self._catch_up(through=events[0].sequence - 1)
        outcome = committed.result
        for artifact in outcome.artifacts:
            self._case.keep(artifact)
        if self._copy is not None:
            for stage, held in outcome.begun:
                self._copy.send(Begun(stage=stage, held=held))
        for stored, new in zip(events, outcome.payloads, strict=True):
            self._position = stored.sequence
            if new is not None and appended is not None:
                self._observe_own(new, stored.sequence, appended.run.update_us)
        for step_id, permit in outcome.permits.items():
            self._toolbox.send(step_id, permit)
        self._once |= outcome.once
        self._settle(items, outcome)

    def _observe_own(self, new: NewEvent, sequence: int, time_us: int) -> None:
        event = RecordedEvent(
            run_id=self.run_id,
            sequence=sequence,
            time_us=time_us,
            epoch=self.epoch,
            step_id=new.step_id,
            payload=new.payload,
        )
        self._observe(event)

    def _settle(self, items: Sequence[Item], outcome: Outcome) -> None:
        """What the committed state means for the copy."""
        ended_now = any(isinstance(item, Ended) for item in items)
        if outcome.state.is_final or outcome.state is RunState.PAUSED or ended_now:
            self._is_over = True
        elif outcome.state.is_waiting and self._unwind_by is None and self._copy is not None:
            self._unwind_by = self._parts.clock.monotonic() + _UNWIND_SECONDS
            self._copy.send(Suspend())

    # ---- ends --------------------------------------------------------------------------------

    def _begin_stop(self, reason: str) -> None:
        """A stop is committed: the copy refuses from now on and has its grace to end."""
        if self._kill_at is not None:
            return
        limits = self._case.revision.limits
        now = self._parts.clock.monotonic()
        self._grace_until = now + limits.grace_seconds
        self._kill_at = self._grace_until + limits.kill_seconds
        if self._copy is not None:
            self._copy.send(Stop(grace_seconds=limits.grace_seconds, reason=reason))

    async def _keep_deadlines(self) -> None:
        now = self._parts.clock.monotonic()
        if self._grace_until is not None and now >= self._grace_until:
            self._grace_until = None
            await self._toolbox.cancel()
            self._inbox.recheck()
        if self._kill_at is not None and now >= self._kill_at:
            unstoppable = await self._copy.kill() if self._copy is not None else ()
            await self._conclude(_killed, unstoppable=tuple(unstoppable))

    async def _copy_gone(self, gone: Lost) -> None:
        """The copy died without a word: killed, crashed, or never started."""
        if gone.is_spawn:
            await self._fail(FailureReason.SPAWN_FAILED, gone.reason)
        else:
            await self.lose(gone.reason)

    async def lose(self, reason: str) -> None:
        """This attempt is lost: the run waits for its next, if it has one left."""
        await self._conclude(lambda run, at: worker_lost(run, at, reason))

    async def _fail(self, reason: FailureReason, message: str) -> None:
        error = RunError(reason=reason, message=message)
        await self._conclude(
            lambda run, at: ended(run, Trigger.RAISE, RunState.FAILED, at, error=error)
        )

    async def _give_back_when_safe(self) -> None:
        """Let go, but not while a call is in flight that may not be repeated."""
        is_once_open = any(self._case.journal.is_open(step_id) for step_id in self._once)
        if self._kill_at is not None or is_once_open or self._toolbox.holds_unrepeatable():
            return
        if self._copy is not None:
            await self._copy.kill()

        def back(run: Run, at: int) -> tuple[Run, list[NewEvent]]:
            after, event = given_back(run, at, "the worker drains")
            return after, [event]

        await self._conclude(back)

    async def _conclude(self, decide: LastWord, unstoppable: tuple[str, ...] = ()) -> None:
        """Write the run's last word in this epoch. A stop that was committed before it wins."""

        def unit(rows: Rows, now_us: int) -> Change[None]:
            run = fence(rows.run(self.run_id), self._parts.owner, self.epoch)
            if run.state is RunState.STOPPING:
                after, moves = wound_down(run, now_us, unstoppable=unstoppable)
            else:
                after, moves = decide(run, now_us)
            return concluded(rows, after, moves, now_us)

        reads = Reads(runs=[self.run_id], open_of=[self.run_id])
        await self._insist(lambda: self._parts.store.write(reads, unit))
        self._is_over = True

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write, again and again while the database is away and the lease holds."""
        while True:
            try:
                return await write()
            except Unavailable:
                if self._parts.clock.monotonic() >= self._fence_at:
                    raise LostLease("the lease ended while the database was away") from None
                await self._parts.clock.sleep(_RETRY_SECONDS)


def _killed(run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
    return worker_lost(run, now_us, "killed")
