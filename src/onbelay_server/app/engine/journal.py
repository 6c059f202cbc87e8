"""The journal of a run, read off its log: what was asked, and how each call ended.

There is no second record of a run's progress. The events that watchers see are what a later copy of
the agent is replayed from, so neither can say something the other does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from onbelay_agent.protocol import Failure, Record
from onbelay_server.domain.event import (
    ApprovalDecided,
    ApprovalExpired,
    ArtifactSaved,
    CustomReported,
    LogWritten,
    ProgressReported,
    StepCancelled,
    StepError,
    StepFinished,
    StepRestarted,
    StepStarted,
    TextDelta,
    TimerFired,
    ToolCallFinished,
)
from onbelay_server.domain.state import Decision, StepKind
from onbelay_server.ports.event_codec import RecordedEvent

_EMIT_MARK = ":emit#"


class Journal:
    """Folds events, in order, into records. One instance follows one run's log."""

    def __init__(self, contents: Mapping[str, str]) -> None:
        """`contents`: artifact id → SHA-256, for results that were too large for the log."""
        self._contents = dict(contents)
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

    def read(self, event: RecordedEvent) -> Record | None:
        """Take the next event; the record of a call's end, if it is one."""
        step_id, payload = event.step_id, event.payload
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
        return None

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
                data_json=json.dumps({"by": by}),
            )
            return _finished(event, failure=failure)
        if decided.decision is Decision.ANSWER:
            return _finished(event, ok_json=decided.answer_json)
        if is_effect:
            self._may_retry.add(event.step_id)
            return None
        return _finished(event, ok_json=json.dumps({"by": by, "comment": decided.comment}))


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
