"""Drives one claimed run: the only caller of the harness and the only writer of its progress."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from onbelay_agent.protocol import Begin, Emitted, Ended, FromHost, Pulse, Ready, Stop, Suspend
from onbelay_server.app.engine.casefile import CaseFile
from onbelay_server.app.engine.endings import Endings
from onbelay_server.app.engine.fate import Fate
from onbelay_server.app.engine.follower import Follower
from onbelay_server.app.engine.inbox import Inbox
from onbelay_server.app.engine.journal import can_replay
from onbelay_server.app.engine.limits import StopClock, Watchdog
from onbelay_server.app.engine.parts import Parts
from onbelay_server.app.engine.toolbox import Toolbox
from onbelay_server.app.engine.turn import Item, Outcome, Turn, pass_ends
from onbelay_server.app.engine.unwinding import Unwinding
from onbelay_server.domain.error import Refusal
from onbelay_server.domain.run import Run, RunError
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.ports.event_codec import UnencodableEvent
from onbelay_server.ports.failpoints import reach
from onbelay_server.ports.harness import Copy, CopyLost

log = logging.getLogger(__name__)


class Executor:
    """One run in one epoch, from its claim until the run ends, waits or belongs to another."""

    def __init__(self, parts: Parts, case: CaseFile) -> None:
        now = parts.clock.monotonic()
        limits = case.revision.limits
        self._parts = parts
        self._case = case
        self._run = case.run
        self._inbox = Inbox()
        tell, on_stop, on_retry = self._tell, self.stop, self.give_back
        self._follower = Follower(
            case, parts.store, parts.codec, tell=tell, on_stop=on_stop, on_retry=on_retry
        )
        self._intents = case.intents(parts.broker, parts.store, parts.tokens)
        self._endings = Endings(
            case.revision, case.writer, lambda: os.urandom(10), case.journal.has_effects
        )
        self._fate = Fate(parts, case, now + parts.pace.lease_seconds)
        self._toolbox = Toolbox(
            parts.broker, parts.clock, case.put_blob, self._inbox.put, limits.tool_seconds
        )
        self._watchdog = Watchdog.of(case.run, limits)
        self._copy: Copy | None = None
        self._code = {"python": case.run.code_python, "fingerprint": case.run.code_fingerprint}
        self._is_over = False
        self._is_draining = False
        self._is_pausing = case.run.pause is not None
        self._unwinding = Unwinding(parts, case.run)
        self._stop: StopClock | None = None
        self._later: list[Item] = []
        """Frames whose time has not come: calls of a pausing run, the end of a stopping one."""
        self._running: dict[str, bool] = {}
        """Steps this copy was let begin; True for those that may not be repeated."""

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

    def renewed(self, fence_at: float, *, pause_requested: bool) -> None:
        """The lease holds until `fence_at` of the monotonic clock."""
        self._fate.fence_at = fence_at
        if pause_requested != self._is_pausing:
            self._is_pausing = pause_requested
            self._inbox.recheck()

    def row_changed(self, run: Run) -> None:
        """The run's row changed without an event: a pause was asked for, or taken back."""
        if run.epoch == self.epoch:
            self.renewed(self._fate.fence_at, pause_requested=run.pause is not None)

    def stop(self, reason: str) -> None:
        """A stop of the run is committed. Heard of twice, it is begun once."""
        if self._stop is None:
            limits = self._case.revision.limits
            self._stop = StopClock.of(limits, self._parts.clock.monotonic())
            self._tell(Stop(grace_seconds=limits.grace_seconds, reason=reason))
            self._inbox.recheck()

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
            if self._case.is_stopping:
                await self._conclude(self._fate.kill(()))
            else:
                await self._launch()
            while not self._is_over:
                await self._inbox.wait(self._next_deadline())
                await self._take_up()
        finally:
            self._inbox.close()
            await self._toolbox.cancel()
            if self._copy is not None:
                await self._unwinding.end(self._copy)

    async def _launch(self) -> None:
        harness = self._parts.harness_for(self._case.revision)
        if isinstance(harness, str):
            await self._conclude(self._fate.fail(FailureReason.AGENT_NOT_FOUND, harness))
            return
        if objection := self._parts.stubborn.objection(self.run_id):
            await self._conclude(self._fate.fail(FailureReason.CRASH_LOOP, objection))
            self._parts.stubborn.forget(self.run_id)
            return
        self._copy = await harness.launch(self._case.launch(self._begun, self._inbox.put))

    def _begun(self) -> None:
        self._watchdog.begin(self._parts.clock.monotonic())
        if self._copy is not None:
            self._inbox.put(())  # it had to wait for its place: its marks are set only now

    def _next_deadline(self) -> float:
        """Seconds until the executor must look up by itself."""
        now = self._parts.clock.monotonic()
        marks = [now + self._parts.pace.poll_seconds, self._fate.fence_at, self._watchdog.next_at]
        if self._unwinding.until is not None:
            marks.append(self._unwinding.until)
        if self._stop is not None:
            marks.append(self._stop.next_at)
        return max(0.0, min(marks) - now)

    async def _take_up(self) -> None:
        now = self._parts.clock.monotonic()
        if now >= self._fate.fence_at:
            log.warning("lease lost", extra={"action": "lease_lost", "run_id": self.run_id})
            self._is_over = True
            return
        try:
            if self._inbox.is_behind(self._follower.position):
                await self._follower.catch_up()
            said = self._inbox.take()
            if said:
                is_word = any(not isinstance(one, Ready | Pulse) for one in said)
                self._watchdog.hear(now, is_word=is_word)
            if self._unwinding.until is not None:
                self._is_over = self._unwinding.is_over(said)
                return
            await self._take(said)
            if not self._is_over:
                await self._look_after()
        except Refusal:
            self._is_over = True
        except UnencodableEvent as problem:
            failing = self._fate.fail(FailureReason.HARNESS_ERROR, f"the agent's words: {problem}")
            await self._conclude(failing)

    async def _take(self, said: Sequence[Item | CopyLost]) -> None:
        items: list[Item] = []
        for one in said:
            match one:
                case Ready():
                    await self._meet(one)
                case Pulse() | CopyLost():
                    pass
                case _:
                    items.append(one)
        items = self._timely(items)
        if len(items) > 1 and isinstance(items[-1], Ended):
            # An end closes what the store holds: what came before it must stand there.
            await self._commit(items[:-1])
            items = items[-1:]
        if items and not self._is_over:
            await self._commit(items)
        gone = next((one for one in said if isinstance(one, CopyLost)), None)
        if gone is not None and not self._is_over:
            await self._copy_gone(gone)

    def _timely(self, items: list[Item]) -> list[Item]:
        """What can be written now: a pausing run begins nothing, and the end of a stopping copy
        waits for the tools in flight."""
        items, self._later = [*self._later, *items], []
        if self._stop is not None:
            is_early = not self._stop.is_grace_over and self._toolbox.is_busy
            if is_early and items and isinstance(items[-1], Ended):
                self._later = [items.pop()]
        elif self._is_pausing:
            self._later = [replace(one, emits=()) for one in items if isinstance(one, Begin)]
            items = [Emitted(emits=one.emits) if isinstance(one, Begin) else one for one in items]
        return items

    async def _meet(self, ready: Ready) -> None:
        """The copy says what it is: a journal is not replayed by what could not have written it."""
        self._code = {"python": ready.python, "fingerprint": ready.fingerprint}
        if not can_replay(self._run.code_python, ready.python):
            await self._kill()
            recorded, found = f"Python {self._run.code_python}", f"Python {ready.python}"
            await self._conclude(self._fate.hold(recorded, found))

    # ---- writing -----------------------------------------------------------------------------

    async def _commit(self, items: Sequence[Item]) -> None:
        """Write what the copy said as one unit, then tell it what is recorded."""
        turn = Turn(
            items,
            run=self._run,
            intents=self._intents,
            files=self._case.writer,
            endings=self._endings,
            journal=self._case.journal,
            emits=self._parts.emits,
            code=self._code,
        )
        await pass_ends(items)
        await self._intents.prepare(turn.begins)
        committed = await self._fate.insist(
            lambda: self._parts.store.write(turn.reads, turn.decide)
        )
        appended = committed.runs.get(self.run_id)
        outcome = committed.result
        for artifact in outcome.artifacts:
            self._case.keep(artifact)
        await self._follower.committed(appended, outcome)
        self._toolbox.follow(items, outcome.permits)
        if outcome.due_us is not None:
            self._parts.alarm.set(outcome.due_us)
        self._running |= outcome.running
        self._settle(items, outcome)

    def _tell(self, frame: FromHost) -> None:
        if self._copy is not None:
            self._copy.send(frame)

    def _settle(self, items: Sequence[Item], outcome: Outcome) -> None:
        """What the committed state means for the copy."""
        if outcome.state.is_final or any(isinstance(item, Ended) for item in items):
            self._is_over = True
        elif outcome.state.is_waiting or outcome.state is RunState.PAUSED:
            reach("after_park_before_suspend")
            self._suspend()

    def _suspend(self) -> None:
        """The run goes on without this copy."""
        if not self._watchdog.has_begun:
            self._is_over = True
        elif self._unwinding.until is None:
            self._unwinding.begin()
            self._tell(Suspend())

    # ---- looking after it --------------------------------------------------------------------

    async def _look_after(self) -> None:
        """Drain, pause, stop and limits, once what was said is written."""
        now = self._parts.clock.monotonic()
        if self._unwinding.until is not None:
            return
        if self._stop is not None:
            await self._keep_stop_deadlines(self._stop, now)
            return
        await self._fate.count_time(is_spent=self._watchdog.has_begun)
        breach = self._watchdog.breach(now) or self._follower.history.breach()
        if breach is not None:
            await self._breach(breach)
        elif self._watchdog.is_silent(now):
            await self._silent()
        elif self._is_draining:
            await self._give_back_when_safe()
        elif self._is_pausing:
            await self._pause_when_idle()
        elif (warning := self._follower.history.warning()) is not None:
            await self._fate.warn(warning)

    async def _breach(self, error: RunError) -> None:
        unstoppable = await self._kill()
        named = f"; still running: {', '.join(unstoppable)}" if unstoppable else ""
        full = RunError(reason=error.reason, message=error.message + named)
        await self._conclude(self._fate.breach(full))

    async def _silent(self) -> None:
        """No pulse: by its own fault it fails; by another's it is run again elsewhere."""
        if self._copy is not None and not self._copy.is_to_blame():
            await self._kill()
            await self._conclude(self._fate.lose("another run blocked its agent loop"))
        else:
            await self._breach(self._watchdog.silence())

    async def _pause_when_idle(self) -> None:
        """A boundary: nothing the copy or a tool does is in flight."""
        if self._toolbox.is_busy or any(map(self._case.journal.is_open, self._running)):
            return
        after = await self._fate.pause()
        if after.state is RunState.PAUSED:
            self._suspend()
        else:
            self._is_over = after.state.is_final
            self._is_pausing = False
            self._inbox.recheck()

    async def _give_back_when_safe(self) -> None:
        """Let go, but not while a call is in flight that may not be repeated."""
        is_open = self._case.journal.is_open
        is_once_open = any(once and is_open(step_id) for step_id, once in self._running.items())
        if not is_once_open and not self._toolbox.holds_unrepeatable():
            await self._kill()
            await self._conclude(self._fate.give_back())

    # ---- ends --------------------------------------------------------------------------------

    async def _keep_stop_deadlines(self, stop: StopClock, now: float) -> None:
        if now >= stop.kill_at or not self._watchdog.has_begun:
            await self._conclude(self._fate.kill(tuple(await self._kill())))
        elif now >= stop.grace_until and not stop.is_grace_over:
            stop.is_grace_over = True
            await self._toolbox.cancel()
            self._inbox.recheck()

    async def _kill(self) -> Sequence[str]:
        return await self._copy.kill() if self._copy is not None else ()

    async def _copy_gone(self, gone: CopyLost) -> None:
        """The copy died without a word: killed, crashed, or never started."""
        failed = self._fate.fail(FailureReason.SPAWN_FAILED, gone.reason) if gone.is_spawn else None
        await self._conclude(failed or self._fate.lose(gone.reason))

    async def _conclude(self, last_word: Awaitable[Run]) -> None:
        """Write the run's last word in this epoch."""
        await last_word
        self._is_over = True
