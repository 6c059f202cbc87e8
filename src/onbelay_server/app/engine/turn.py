"""One turn of a run: what its copy said together, made one unit of the store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onbelay_agent.protocol import Begin, Cancel, Emit, Emitted, Ended, Finish, Parked, ToHost
from onbelay_server.app.engine.intents import Batch, Intents, is_once
from onbelay_server.app.engine.journal import Journal
from onbelay_server.app.governance.broker import Permit
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, EncodedEvent, NewEvent, Reads, Rows
from onbelay_server.domain.event import (
    CustomReported,
    EventPayload,
    LogWritten,
    ProgressReported,
    StepCancelled,
    StepError,
    StepFinished,
    TextDelta,
    ToolCallFinished,
)
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.lifecycle import ended, fence, moved
from onbelay_server.domain.run import Run, RunError
from onbelay_server.domain.state import FailureReason, LogLevel, RunState
from onbelay_server.domain.stopping import wound_down
from onbelay_server.domain.transition import Trigger
from onbelay_server.domain.waiting import parked, voided
from onbelay_server.ports.event_codec import EventCodec

HOLD_US = 1_000_000
"""A copy whose nearest wait ends this soon is kept: running it again would cost more."""

MAX_EMIT_CHARACTERS = 60_000
"""Four bytes each at most, so that an event stays below 256 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEnd:
    """A tool call came back."""

    step_id: str
    finished: ToolCallFinished
    content_sha256: str = ""
    """Where the result is kept when it is too large for the log."""


Item = ToHost | ToolEnd


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a committed turn leaves to do."""

    begun: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Stages that are recorded, each with the calls the copy must not run itself."""
    permits: dict[str, Permit] = field(default_factory=dict)
    payloads: list[NewEvent | None] = field(default_factory=list)
    """What was appended, in order; None for emits, which end no call."""
    artifacts: list[Artifact] = field(default_factory=list)
    once: set[str] = field(default_factory=set)
    """Steps the copy may now run that may not be repeated."""
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
        journal: Journal,
        codec: EventCodec,
        kept: Mapping[str, int],
    ) -> None:
        """`kept`: the size of every blob the run has put, by its SHA-256."""
        self._items = items
        self._run = run
        self._intents = intents
        self._journal = journal
        self._codec = codec
        self._kept = kept
        self._entropy: dict[str, bytes] = {}

    @property
    def reads(self) -> Reads:
        """The run's row; its open waits only where a frame may end or count them."""
        needs_open = any(
            isinstance(item, Cancel | Parked | Ended)
            or (isinstance(item, Begin) and bool(item.reopened))
            for item in self._items
        )
        return Reads(runs=[self._run.id], open_of=[self._run.id] if needs_open else [])

    def decide(self, rows: Rows, now_us: int) -> Change[Outcome]:
        """The unit. Raises Lost when the run is another owner's."""
        before = run = fence(rows.run(self._run.id), self._run.owner or "", self._run.epoch)
        batch, outcome = Batch(), Outcome()
        for item in self._items:
            match item:
                case Emitted():
                    self._emit(batch, item.emits)
                case Begin():
                    self._begin(batch, outcome, item, run, rows, now_us)
                case Finish():
                    self._emit(batch, item.emits)
                    outcome.is_progress |= self._finish(batch, item, now_us)
                case Cancel():
                    self._cancel(batch, item, rows, now_us)
                case ToolEnd():
                    outcome.is_progress |= self._tool_end(batch, item, now_us)
                case Parked():
                    run = self._park(batch, item, run, rows, now_us)
                case Ended():
                    self._emit(batch, item.emits)
                    run = self._end(batch, item, run, rows, now_us)
        if outcome.is_progress and run.attempt > 1 and run.state is RunState.RUNNING:
            run = replace(run, attempt=1)
        outcome.payloads = [one if isinstance(one, NewEvent) else None for one in batch.events]
        outcome.artifacts = [one for one in batch.put if isinstance(one, Artifact)]
        outcome.permits = batch.permits
        outcome.state = run.state
        # A turn that only appends leaves the row to the store, which counts its events.
        put = [run, *batch.put] if run is not before else batch.put
        return Change(result=outcome, put=put, delete=batch.delete, events=batch.events)

    def _chance(self, key: str) -> bytes:
        """The same bytes each time the unit has to be decided again."""
        return self._entropy.setdefault(key, os.urandom(10))

    def _emit(self, batch: Batch, emits: Sequence[Emit]) -> None:
        for emit in emits:
            for payload in _payloads(emit):
                body = self._codec.encode(self._run.id, emit.place, payload)
                batch.events.append(EncodedEvent(self._run.id, self._codec.kind(payload), body))

    def _begin(
        self, batch: Batch, outcome: Outcome, begin: Begin, run: Run, rows: Rows, now_us: int
    ) -> None:
        self._emit(batch, begin.emits)
        if run.state is not RunState.RUNNING:
            return  # a committed stop: nothing new begins, and the copy is being told
        for intent in begin.intents:
            self._intents.begin(batch, intent, begin.stage, self._chance(intent.id), now_us)
            if is_once(intent):
                outcome.once.add(intent.id)
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
                self._intents.retry(batch, again, begun.kind, request)
            elif self._intents.reopen(
                batch, again, begun.kind, request, self._chance(again.step_id), now_us
            ):
                held.append(again.step_id)
        outcome.once |= {
            again.step_id for again in begin.reopened if again.once and again.step_id not in held
        }
        outcome.is_progress |= bool(begin.intents)
        outcome.begun.append((begin.stage, tuple(held)))

    def _finish(self, batch: Batch, end: Finish, now_us: int) -> bool:
        if not self._journal.is_open(end.step_id):
            return False
        finished = StepFinished(stage=end.stage, duration_us=end.duration_us)
        if end.failure is not None:
            failure = end.failure
            error = StepError(
                type=failure.type, message=failure.message, data_json=failure.data_json
            )
            finished = replace(finished, error=error)
        elif end.content_sha256:
            artifact_id = self._keep(batch, end.step_id, end.content_sha256, now_us)
            finished = replace(finished, result_artifact_id=artifact_id)
        else:
            finished = replace(finished, result_json=end.ok_json)
        batch.events.append(NewEvent(self._run.id, finished, end.step_id))
        return True

    def _tool_end(self, batch: Batch, end: ToolEnd, now_us: int) -> bool:
        if not self._journal.is_open(end.step_id):
            return False
        finished = end.finished
        if end.content_sha256:
            artifact_id = self._keep(batch, end.step_id, end.content_sha256, now_us)
            finished = replace(finished, result_artifact_id=artifact_id)
        batch.events.append(NewEvent(self._run.id, finished, end.step_id))
        return True

    def _keep(self, batch: Batch, place: str, sha256: str, now_us: int) -> str:
        """A nameless artifact that keeps a value too large for the log."""
        artifact = Artifact(
            id=make_id("art", now_us, self._chance(place)),
            tenant=self._run.tenant,
            owner=self._run.starter,
            run_id=self._run.id,
            step_id=place,
            name="",
            media_type="application/json",
            size_bytes=self._kept[sha256],
            sha256=sha256,
            create_us=now_us,
        )
        batch.put.append(artifact)
        return artifact.id

    def _cancel(self, batch: Batch, cancel: Cancel, rows: Rows, now_us: int) -> None:
        waits = {wait.step_id: wait for wait in batch.open_waits(rows.waits(self._run.id))}
        pending = {one.step_id: one for one in batch.pending(rows.pending_approvals(self._run.id))}
        for step_id in cancel.step_ids:
            if wait := waits.get(step_id):
                batch.delete.append(wait)
            if approval := pending.get(step_id):
                approvals, lost = voided(
                    self._run.id, [approval], "the agent no longer waits for it", now_us
                )
                batch.put += approvals
                batch.events += lost
            batch.events.append(NewEvent(self._run.id, StepCancelled(), step_id))

    def _park(self, batch: Batch, park: Parked, run: Run, rows: Rows, now_us: int) -> Run:
        """Give the worker back, unless one of the awaited ends is recorded already or is near."""
        waits = batch.open_waits(rows.waits(run.id))
        awaited = set(park.waiting)
        is_settled = awaited - {wait.step_id for wait in waits}
        is_near = any(w.until_us is not None and w.until_us <= now_us + HOLD_US for w in waits)
        if run.state is not RunState.RUNNING or is_settled or is_near:
            return run
        after, event = parked(run, waits, now_us)
        batch.events.append(event)
        return after

    def _end(self, batch: Batch, end: Ended, run: Run, rows: Rows, now_us: int) -> Run:
        if end.outcome == "suspended":
            return run
        if end.outcome == "stopped" and run.state is not RunState.STOPPING:
            return run
        if end.outcome == "diverged" and run.state is RunState.RUNNING:
            error = RunError(reason=FailureReason.DIVERGED, message=end.message)
            after, event = moved(
                run,
                Trigger.PAUSE,
                RunState.PAUSED,
                now_us,
                reason=end.message,
                owner=None,
                lease_until_us=None,
                error=error,
            )
            batch.events.append(event)
            return after
        batch.delete += batch.open_waits(rows.waits(run.id))
        pending = batch.pending(rows.pending_approvals(run.id))
        approvals, lost = voided(run.id, pending, "the run ended", now_us)
        batch.put += approvals
        batch.events += lost
        after, moves = self._final(batch, end, run, now_us)
        batch.events += moves
        return after

    def _final(self, batch: Batch, end: Ended, run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
        output_id = ""
        if end.content_sha256:
            output_id = self._keep(batch, "output", end.content_sha256, now_us)
        if run.state is RunState.STOPPING:
            return wound_down(
                run,
                now_us,
                unstoppable=end.abandoned,
                output_json=end.output_json,
                output_artifact_id=output_id,
            )
        if end.outcome == "returned":
            return ended(
                run,
                Trigger.RETURN,
                RunState.SUCCEEDED,
                now_us,
                output_json=end.output_json,
                output_artifact_id=output_id,
            )
        reason = FailureReason.STUCK if end.outcome == "stuck" else FailureReason.AGENT_ERROR
        if end.error_type == "InvalidInput":
            reason = FailureReason.INVALID_INPUT
        message = f"{end.error_type}: {end.message}" if end.error_type else end.message
        error = RunError(reason=reason, message=message[:4000])
        return ended(run, Trigger.RAISE, RunState.FAILED, now_us, error=error)


def _payloads(emit: Emit) -> list[EventPayload]:
    """The events of one emit; a long text becomes several, other long things are cut."""
    text = emit.text
    match emit.kind:
        case "text":
            parts = range(0, max(len(text), 1), MAX_EMIT_CHARACTERS)
            return [
                TextDelta(message_id="", text=text[start : start + MAX_EMIT_CHARACTERS])
                for start in parts
            ]
        case "progress":
            return [ProgressReported(done=emit.done, total=emit.total, note=_cut(text))]
        case "report":
            data_json = emit.data_json if len(emit.data_json) <= MAX_EMIT_CHARACTERS else "null"
            return [CustomReported(name=_cut(text), data_json=data_json)]
        case "log":
            return [LogWritten(level=LogLevel(emit.level), message=_cut(text))]


def _cut(text: str) -> str:
    if len(text) <= MAX_EMIT_CHARACTERS:
        return text
    return text[:MAX_EMIT_CHARACTERS] + " … (cut)"
