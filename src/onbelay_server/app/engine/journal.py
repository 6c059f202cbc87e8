"""The journal of a run, read off its log: what was asked, and how each call ended.

There is no second record of a run's progress. The events that watchers see are what a later copy of
the agent is replayed from, so neither can say something the other does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from onbelay_agent.protocol import Failure, Record
from onbelay_server.app.engine.failures import (
    child_failure,
    operation_expired,
    operation_failure,
)
from onbelay_server.domain.event import (
    ApprovalDecided,
    ApprovalExpired,
    ArtifactSaved,
    ChildRunFinished,
    ChildRunStarted,
    CustomReported,
    EventPayload,
    LogWritten,
    MessageRead,
    MessageReceived,
    OperationCompleted,
    OperationExpired,
    OperationStarted,
    ProgressReported,
    StepCancelled,
    StepError,
    StepFinished,
    StepRestarted,
    StepStarted,
    TextDelta,
    TimerFired,
    ToolCallFinished,
    UnknownPayload,
)
from onbelay_server.domain.state import Decision, RunState, StepKind
from onbelay_server.ports.event_codec import RecordedEvent

_EMIT_MARK = ":emit#"
_OUTSIDE_KINDS = frozenset(
    kind.value
    for kind in (
        StepKind.STEP,
        StepKind.TOOL,
        StepKind.MODEL,
        StepKind.CHILD,
        StepKind.OPERATION,
        StepKind.ARTIFACT_SAVE,
    )
)


class Journal:
    """Folds events, in order, into records. One instance follows one run's log."""

    def __init__(self, token_of: Callable[[str], str]) -> None:
        """`token_of` gives an operation's token again, which the log does not hold."""
        self._token_of = token_of
        self._contents: dict[str, str] = {}
        self._messages: dict[str, MessageReceived] = {}
        self._records: list[Record] = []
        self._started: dict[str, int] = {}
        self._open: set[str] = set()
        self._may_retry: set[str] = set()
        self._requests: dict[str, str] = {}
        self.emitted: dict[str, int] = {}
        """The highest ordinal written in each branch."""

    @property
    def records(self) -> tuple[Record, ...]:
        """Everything read so far, in log order."""
        return tuple(self._records)

    def started(self, step_id: str) -> Record | None:
        """The record of a call's start."""
        index = self._started.get(step_id)
        return None if index is None else self._records[index]

    def request_json(self, step_id: str) -> str:
        """What the call was asked with."""
        return self._requests[step_id]

    def is_open(self, step_id: str) -> bool:
        """Whether the call was started and has not ended."""
        return step_id in self._open

    def may_retry(self, step_id: str) -> bool:
        """Whether a person said, since it last began, that it may be tried again."""
        return step_id in self._may_retry

    def keep_content(self, artifact_id: str, sha256: str) -> None:
        """Learn where a result too large for the log is kept."""
        self._contents[artifact_id] = sha256

    def unknown_content(self, payload: EventPayload | UnknownPayload) -> str:
        """The artifact whose hash must be learnt before this event can be read, or nothing."""
        artifact_id = ""
        if isinstance(payload, StepFinished | ToolCallFinished):
            artifact_id = payload.result_artifact_id or ""
        elif isinstance(payload, ChildRunFinished):
            artifact_id = payload.output_artifact_id
        return "" if artifact_id in self._contents else artifact_id

    @property
    def has_children(self) -> bool:
        """Whether the run has started child runs."""
        return any(record.kind == StepKind.CHILD.value for record in self._records)

    def has_effects(self) -> bool:
        """Whether anything is recorded that may have happened outside."""
        return any(record.kind in _OUTSIDE_KINDS for record in self._records)

    def read(self, event: RecordedEvent) -> Record | None:
        """Take the next event; the record of a call's end, if it is one."""
        step_id, payload = event.step_id, event.payload
        if isinstance(payload, MessageReceived):
            self._messages[payload.message_id] = payload
        if not step_id:
            return None
        match payload:
            case StepStarted():
                self._begin(event, payload)
                return None
            case StepRestarted():
                index = self._started[step_id]
                self._records[index] = replace(self._records[index], attempt=payload.attempt)
                self._may_retry.discard(step_id)
                return None
            case StepCancelled():
                return self._end(Record(type="cancelled", step_id=step_id, time_us=event.time_us))
            case TextDelta() | ProgressReported() | CustomReported() | LogWritten():
                branch, _, ordinal = step_id.rpartition(_EMIT_MARK)
                self.emitted[branch] = max(self.emitted.get(branch, 0), int(ordinal))
                return None
        record = self._ending(event)
        return None if record is None else self._end(record)

    def _begin(self, event: RecordedEvent, payload: StepStarted) -> None:
        self._started[event.step_id] = len(self._records)
        self._records.append(
            Record(
                type="started",
                step_id=event.step_id,
                time_us=event.time_us,
                kind=payload.kind.value,
                digest=payload.digest,
                stage=payload.stage,
                cancelled=payload.cancelled,
                attempt=payload.attempt,
            )
        )
        self._requests[event.step_id] = payload.request_json
        if not payload.cancelled:
            self._open.add(event.step_id)

    def _end(self, record: Record) -> Record | None:
        if record.step_id not in self._open:
            return None
        self._open.discard(record.step_id)
        self._records.append(record)
        return record

    def _ending(self, event: RecordedEvent) -> Record | None:
        match event.payload:
            case StepFinished() as end:
                return self._outcome(
                    event, end.result_json, end.result_artifact_id, end.error, stage=end.stage
                )
            case ToolCallFinished() as end:
                return self._outcome(event, end.result_json, end.result_artifact_id, end.error)
            case ApprovalDecided() as end:
                return self._decision(event, end)
            case ApprovalExpired():
                return _finished(
                    event, failure=Failure(type="Expired", message="nobody decided in time")
                )
            case TimerFired():
                return _finished(event, ok_json="null")
            case ArtifactSaved() as saved:
                return _finished(event, ok_json=artifact_json(saved))
            case MessageRead() as read:
                return _finished(event, ok_json=self._read_messages(read))
            case ChildRunStarted() as child:
                return _finished(event, ok_json=json.dumps({"child_run_id": child.child_run_id}))
            case ChildRunFinished() as child:
                return self._child_end(event, child)
            case OperationStarted() as operation:
                opened = {
                    "operation_id": operation.operation_id,
                    "token": self._token_of(operation.operation_id),
                }
                return _finished(event, ok_json=json.dumps(opened))
            case OperationCompleted() as end:
                return self._operation_end(event, end)
            case OperationExpired() as late:
                return _finished(event, failure=operation_expired(late.operation_id))
        return None

    def _read_messages(self, read: MessageRead) -> str:
        taken = [self._messages[message_id] for message_id in read.message_ids]
        return json.dumps(
            [
                {
                    "message_id": one.message_id,
                    "sent_by": one.sent_by,
                    "text": one.text,
                    "data": json.loads(one.data_json) if one.data_json else None,
                }
                for one in taken
            ]
        )

    def _child_end(self, event: RecordedEvent, child: ChildRunFinished) -> Record:
        if child.state is not RunState.SUCCEEDED:
            return _finished(
                event, failure=child_failure(child.child_run_id, child.state, child.error)
            )
        if child.output_artifact_id:
            sha256 = self._contents[child.output_artifact_id]
            return _finished(event, content_sha256=sha256)
        return _finished(event, ok_json=child.output_json or "null")

    def _operation_end(self, event: RecordedEvent, end: OperationCompleted) -> Record:
        if end.error is None:
            return _finished(event, ok_json=end.result_json or "null")
        return _finished(event, failure=operation_failure(end.operation_id, end.error))

    def _outcome(
        self,
        event: RecordedEvent,
        result_json: str | None,
        result_artifact_id: str | None,
        error: StepError | None,
        *,
        stage: int | None = None,
    ) -> Record:
        if error is not None:
            failure = Failure(
                type=error.type, message=error.message, data_json=error.data_json or "null"
            )
            return _finished(event, failure=failure, stage=stage)
        if result_artifact_id:
            sha256 = self._contents[result_artifact_id]
            return _finished(event, content_sha256=sha256, stage=stage)
        begun = self.started(event.step_id)
        if begun is not None and begun.kind == StepKind.ARTIFACT_READ.value:
            sha256 = json.loads(result_json or "{}")["sha256"]
            return _finished(event, ok_json=result_json, content_sha256=sha256, stage=stage)
        return _finished(event, ok_json=result_json, stage=stage)

    def _decision(self, event: RecordedEvent, decided: ApprovalDecided) -> Record | None:
        by = decided.decided_by
        begun = self.started(event.step_id)
        is_effect = begun is not None and begun.kind in (StepKind.STEP.value, StepKind.TOOL.value)
        if decided.decision is Decision.REJECT:
            failure = Failure(
                type="StepFailed" if is_effect else "Rejected",
                message=decided.comment,
                data_json=json.dumps({"by": by, "comment": decided.comment}),
            )
            return _finished(event, failure=failure)
        if decided.decision is Decision.ANSWER:
            return _finished(event, ok_json=decided.answer_json)
        if is_effect:
            self._may_retry.add(event.step_id)
            return None
        return _finished(event, ok_json=json.dumps({"by": by, "comment": decided.comment}))


def can_replay(begun_with: str, python: str) -> bool:
    """Whether this Python may replay a journal begun with another; an empty one has none.

    3.11 schedules `wait_for` otherwise than later versions: journals do not cross that line."""
    return not begun_with or _is_later_than_3_11(begun_with) == _is_later_than_3_11(python)


def _is_later_than_3_11(python: str) -> bool:
    major, minor = python.split(".")[:2]
    return (int(major), int(minor)) > (3, 11)


def artifact_json(saved: ArtifactSaved) -> str:
    """What the agent is told of a file it saved."""
    return json.dumps(
        {
            "artifact_id": saved.artifact_id,
            "name": saved.name,
            "media_type": saved.media_type,
            "size_bytes": saved.size_bytes,
            "sha256": saved.sha256,
        }
    )


def _finished(
    event: RecordedEvent,
    *,
    ok_json: str | None = None,
    failure: Failure | None = None,
    content_sha256: str = "",
    stage: int | None = None,
) -> Record:
    return Record(
        type="finished",
        step_id=event.step_id,
        time_us=event.time_us,
        stage=stage,
        ok_json=ok_json,
        failure=failure,
        content_sha256=content_sha256,
    )
