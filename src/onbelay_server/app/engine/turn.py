"""One turn of a run: what its copy said together, made one unit of the store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onbelay_agent.protocol import Begin, Cancel, Emitted, Ended, Finish, Parked, ToHost
from onbelay_server.app.engine.batch import Batch
from onbelay_server.app.engine.consequences import reads_of_end
from onbelay_server.app.engine.emits import EmitEncoder
from onbelay_server.app.engine.endings import Endings
from onbelay_server.app.engine.failures import step_error
from onbelay_server.app.engine.files import Files
from onbelay_server.app.engine.intents import Intents, is_once
from onbelay_server.app.engine.journal import Journal
from onbelay_server.app.governance.broker import Permit
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, EncodedEvents, NewEvent, Reads, Rows
from onbelay_server.domain.event import StepCancelled, StepFinished, ToolCallFinished
from onbelay_server.domain.lifecycle import fence
from onbelay_server.domain.pausing import paused
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import RunState, StepKind
from onbelay_server.domain.waiting import parked, voided
from onbelay_server.ports.failpoints import pass_by

HOLD_US = 1_000_000
"""A copy whose nearest wait ends this soon is kept: running it again would cost more."""

_AWAITED_KINDS = frozenset(
    {
        StepKind.APPROVAL,
        StepKind.QUESTION,
        StepKind.TIMER,
        StepKind.CHILD,
        StepKind.OPERATION,
        StepKind.MESSAGES,
    }
)
"""Calls that others end: while one is open, the store holds its wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEnd:
    """A tool call came back."""

    step_id: str
    finished: ToolCallFinished
    content_sha256: str = ""
    """Where the result is kept when it is too large for the log."""


Item = ToHost | ToolEnd


async def pass_ends(items: Sequence[Item]) -> None:
    """Pass the failpoints of what has ended and is about to be recorded."""
    for item in items:
        if isinstance(item, Finish):
            await pass_by("after_step_finished_before_recorded")
        elif isinstance(item, Ended):
            await pass_by("after_end_before_recorded")


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a committed turn leaves to do."""

    begun: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Stages that are recorded, each with the calls the copy must not run itself."""
    permits: dict[str, Permit] = field(default_factory=dict)
    events: Sequence[NewEvent | EncodedEvents] = ()
    """What was appended to the run's own log, in order."""
    artifacts: list[Artifact] = field(default_factory=list)
    running: dict[str, bool] = field(default_factory=dict)
    """Steps the copy may now run; True for those that may not be repeated."""
    due_us: int | None = None
    """When the earliest of the waits it made ends by itself."""
    is_progress: bool = False
    """Something new is recorded: a call nobody asked before, or the end of one."""
    state: RunState = RunState.RUNNING


class Turn:
    """Decides what the frames of one turn come to."""

    def __init__(
        self,
        items: Sequence[Item],
        *,
        run: Run,
        intents: Intents,
        files: Files,
        endings: Endings,
        journal: Journal,
        emits: EmitEncoder,
        code: Mapping[str, str],
    ) -> None:
        """`code`: what the journal's header says, for a run that has none yet."""
        self._items = items
        self._run = run
        self._intents = intents
        self._files = files
        self._endings = endings
        self._journal = journal
        self._emits = emits
        self._code = code
        self._entropy: dict[str, bytes] = {}
        told = [item for item in items if isinstance(item, Emitted)]
        self._is_telling = len(told) == len(items)
        """By far the most turns only tell the watchers something."""
        self._told = [emit for item in told for emit in item.emits]

    @property
    def begins(self) -> list[Begin]:
        """The batches of calls among the frames."""
        return [item for item in self._items if isinstance(item, Begin)]

    @property
    def reads(self) -> Reads:
        """The run's row; whatever else its frames may end, count or ask for. What begins is never
        written in one unit with the end."""
        run = self._run
        if self._is_telling:
            return Reads(runs=[run.id])
        if any(isinstance(item, Ended) for item in self._items):
            return reads_of_end(run, has_children=self._journal.has_children)
        needs = self._intents.needs(self.begins)
        needs_open = needs.open_rows or any(
            isinstance(item, Cancel | Parked) for item in self._items
        )
        return Reads(
            runs=[run.id, *needs.runs],
            trees=[run.root_id] if needs.tree else [],
            open_of=[run.id] if needs_open else [],
            operations=needs.operations,
        )

    def decide(self, rows: Rows, now_us: int) -> Change[Outcome]:
        """The unit. Raises Lost when the run is another owner's."""
        before = run = fence(rows.run(self._run.id), self._run.owner or "", self._run.epoch)
        if self._is_telling:
            told = [self._emits.encoded(self._told, run.id)]
            return Change(result=Outcome(events=told), events=told)
        batch, outcome = Batch(run.id), Outcome()
        ending: Change[Run] | None = None
        for item in self._items:
            match item:
                case Emitted():
                    self._emit(batch, item)
                case Begin():
                    self._emit(batch, item)
                    self._begin(batch, outcome, item, run, rows, now_us)
                case Finish():
                    self._emit(batch, item)
                    outcome.is_progress |= self._finish(batch, item, now_us)
                case Cancel():
                    self._cancel(batch, item, rows, now_us)
                case ToolEnd():
                    outcome.is_progress |= self._tool_end(batch, item, now_us)
                case Parked():
                    run = self._park(batch, item, run, rows, now_us)
                case Ended():
                    self._emit(batch, item)
                    run = self._counted(run, batch, outcome)
                    ending = self._endings.decide(batch, item, run, rows, now_us)
        run = self._counted(run, batch, outcome) if ending is None else ending.result
        events = [*batch.events, *(ending.events if ending else ())]
        outcome.events = [one for one in events if one.run_id == run.id]
        outcome.artifacts = [one for one in batch.put if isinstance(one, Artifact)]
        outcome.permits = batch.permits
        ends = [one.until_us for one in batch.put if isinstance(one, Wait) and one.until_us]
        outcome.due_us = min(ends, default=None)
        outcome.state = run.state
        if ending is not None:
            return Change(
                result=outcome,
                put=[*batch.put, *ending.put],
                delete=[*batch.delete, *ending.delete],
                events=events,
            )
        # A turn that only appends leaves the row to the store, which counts its events.
        put = [run, *batch.put] if run is not before else batch.put
        return Change(result=outcome, put=put, delete=batch.delete, events=batch.events)

    def _counted(self, run: Run, batch: Batch, outcome: Outcome) -> Run:
        """The row with what this turn adds to it: children, a fresh count of attempts, its code."""
        if run.state is RunState.RUNNING:
            if outcome.is_progress and run.attempt > 1:
                run = replace(run, attempt=1)
            if outcome.begun and not run.code_python:
                run = replace(
                    run,
                    code_python=self._code["python"],
                    code_fingerprint=self._code["fingerprint"],
                )
        if batch.children:
            run = replace(run, child_count=run.child_count + batch.children)
            batch.children = 0
        return run

    def _chance(self, key: str) -> bytes:
        """The same bytes each time the unit has to be decided again."""
        return self._entropy.setdefault(key, os.urandom(10))

    def _emit(self, batch: Batch, frame: Begin | Finish | Emitted | Ended) -> None:
        if frame.emits:
            batch.events.append(self._emits.encoded(frame.emits, self._run.id))

    def _begin(
        self, batch: Batch, outcome: Outcome, begin: Begin, run: Run, rows: Rows, now_us: int
    ) -> None:
        if run.state is not RunState.RUNNING:
            return  # a committed stop: nothing new begins, and the copy is being told
        for intent in begin.intents:
            self._intents.begin(batch, intent, begin.stage, rows, self._chance(intent.id), now_us)
            if intent.kind == "STEP" and not intent.cancelled:
                outcome.running[intent.id] = is_once(intent)
        waited = {wait.step_id for wait in rows.waits(run.id)} if begin.reopened else set()
        held = []
        for again in begin.reopened:
            begun = self._journal.started(again.step_id)
            if begun is None or begun.kind is None or not self._journal.is_open(again.step_id):
                continue
            request = self._journal.request_json(again.step_id)
            if again.step_id in waited:
                held.append(again.step_id)
            elif self._journal.may_retry(again.step_id):
                self._intents.effects.again(batch, again, begun.kind, request)
            elif self._intents.reopen(
                batch, again, begun.kind, request, self._chance(again.step_id), now_us
            ):
                held.append(again.step_id)
        outcome.running |= {
            again.step_id: again.once
            for again in begin.reopened
            if again.step_id not in held and self._kind(batch, again.step_id) is StepKind.STEP
        }
        outcome.is_progress |= bool(begin.intents)
        outcome.begun.append((begin.stage, tuple(held)))

    def _is_open(self, batch: Batch, step_id: str) -> bool:
        """Whether the call is begun and has not ended, by the journal and by this unit so far."""
        is_begun = step_id in batch.begun or self._journal.is_open(step_id)
        return is_begun and step_id not in batch.ended

    def _finish(self, batch: Batch, end: Finish, now_us: int) -> bool:
        if not self._is_open(batch, end.step_id):
            return False
        finished = StepFinished(stage=end.stage, duration_us=end.duration_us)
        if end.failure is not None:
            finished = replace(finished, error=step_error(end.failure))
        elif end.content_sha256:
            artifact_id = self._keep(batch, end.step_id, end.content_sha256, now_us)
            finished = replace(finished, result_artifact_id=artifact_id)
        else:
            finished = replace(finished, result_json=end.ok_json)
        batch.add(finished, end.step_id)
        return True

    def _tool_end(self, batch: Batch, end: ToolEnd, now_us: int) -> bool:
        if not self._is_open(batch, end.step_id):
            return False
        finished = end.finished
        if end.content_sha256:
            artifact_id = self._keep(batch, end.step_id, end.content_sha256, now_us)
            finished = replace(finished, result_artifact_id=artifact_id)
        batch.add(finished, end.step_id)
        return True

    def _keep(self, batch: Batch, place: str, sha256: str, now_us: int) -> str:
        return self._files.keep(batch, place, sha256, self._chance(place), now_us)

    def _cancel(self, batch: Batch, cancel: Cancel, rows: Rows, now_us: int) -> None:
        waits = {wait.step_id: wait for wait in batch.open_waits(rows.waits(self._run.id))}
        pending = {one.step_id: one for one in batch.pending(rows.pending_approvals(self._run.id))}
        for step_id in cancel.step_ids:
            wait = waits.get(step_id)
            is_awaited = self._kind(batch, step_id) in _AWAITED_KINDS
            if not self._is_open(batch, step_id) or (is_awaited and wait is None):
                continue  # it ended before the cancellation came
            if wait is not None:
                batch.delete.append(wait)
            if approval := pending.get(step_id):
                approvals, lost = voided(
                    self._run.id, [approval], "the agent no longer waits for it", now_us
                )
                batch.put += approvals
                batch.events += lost
            batch.add(StepCancelled(), step_id)
            batch.permits.pop(step_id, None)

    def _kind(self, batch: Batch, step_id: str) -> StepKind | None:
        if step_id in batch.begun:
            return batch.begun[step_id]
        begun = self._journal.started(step_id)
        return None if begun is None or begun.kind is None else StepKind(begun.kind)

    def _park(self, batch: Batch, park: Parked, run: Run, rows: Rows, now_us: int) -> Run:
        """Give the worker back, unless one of the awaited ends is recorded already or is near."""
        waits = batch.open_waits(rows.waits(run.id))
        is_settled = set(park.waiting) - {wait.step_id for wait in waits}
        if run.state is not RunState.RUNNING or is_settled:
            return run
        if run.pause is not None:
            after, event = paused(run, now_us)
            batch.events.append(event)
            return after
        if any(w.until_us is not None and w.until_us <= now_us + HOLD_US for w in waits):
            return run
        after, event = parked(run, waits, now_us)
        batch.events.append(event)
        return after
