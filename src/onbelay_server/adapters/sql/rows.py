"""Rows to entities and back, column by column in the order of the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from onbelay_server.domain.approval import Approval, ApprovedCall
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.domain.run import Pause, Run, RunError, StopRequest
from onbelay_server.domain.state import (
    ApprovalKind,
    ApprovalState,
    Decision,
    FailureReason,
    Risk,
    RunState,
)

Row = Sequence[Any]
"""One row as the driver gives it: values by position."""

Inputs = tuple[str, Mapping[str, str]]
"""A run's input_json and input_artifacts, which never change."""


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _map(value: Mapping[str, str]) -> str:
    return _dumps(dict(value)) if value else "{}"


def _from_map(text: str) -> dict[str, str]:
    return {} if text == "{}" else dict(json.loads(text))


def _list(values: Sequence[str]) -> str:
    return _dumps(list(values)) if values else "[]"


def _from_list(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(json.loads(text))


def _stop(stop: StopRequest | None) -> str | None:
    if stop is None:
        return None
    return _dumps(
        [
            stop.requested_by,
            stop.reason,
            stop.request_us,
            stop.grace_until_us,
            stop.kill_us,
            stop.root_id,
            stop.unstoppable,
        ]
    )


def _from_stop(text: str | None) -> StopRequest | None:
    if text is None:
        return None
    by, reason, request_us, grace_us, kill_us, root_id, unstoppable = json.loads(text)
    return StopRequest(
        requested_by=by,
        reason=reason,
        request_us=request_us,
        grace_until_us=grace_us,
        kill_us=kill_us,
        root_id=root_id,
        unstoppable=tuple(unstoppable),
    )


def _pause(pause: Pause | None) -> str | None:
    if pause is None:
        return None
    return _dumps(
        [pause.requested_by, pause.request_us, pause.step_id, pause.recorded, pause.found]
    )


def _from_pause(text: str | None) -> Pause | None:
    if text is None:
        return None
    by, request_us, step_id, recorded, found = json.loads(text)
    return Pause(
        requested_by=by, request_us=request_us, step_id=step_id, recorded=recorded, found=found
    )


def _error(error: RunError | None) -> str | None:
    return None if error is None else _dumps([error.reason.value, error.message])


def _from_error(text: str | None) -> RunError | None:
    if text is None:
        return None
    reason, message = json.loads(text)
    return RunError(reason=FailureReason(reason), message=message)


def run_values(run: Run) -> tuple[object, ...]:
    """A new run's row, all columns of `runs`."""
    return (
        run.id,
        run.tenant,
        run.starter,
        run.root_id,
        run.parent_id,
        run.depth,
        run.agent_id,
        run.agent_name,
        run.agent_revision,
        run.agent_owner,
        run.session_id,
        run.rerun_of,
        run.create_us,
        *changed_run_values(run)[1:],
    )


def changed_run_values(run: Run) -> tuple[object, ...]:
    """The id and the columns of `runs` that change, `title` and all behind it."""
    return (
        run.id,
        run.title,
        _map(run.labels),
        run.state.value,
        run.epoch,
        run.owner,
        run.lease_until_us,
        run.attempt,
        run.ready_us,
        _pause(run.pause),
        run.last_sequence,
        run.oldest_sequence,
        run.start_us,
        run.update_us,
        run.finish_us,
        run.output_json,
        run.output_artifact_id,
        _error(run.error),
        _stop(run.stop),
        run.code_python,
        run.code_fingerprint,
        run.replay_after,
        run.active_us,
        run.claim_us,
        run.message_count,
        run.child_count,
    )


def input_values(run: Run) -> tuple[object, ...]:
    return (run.id, run.input_json, _map(run.input_artifacts))


def inputs_from(row: Row) -> Inputs:
    """Of `input_json, input_artifacts`."""
    return row[0], _from_map(row[1])


def run_from(row: Row, inputs: Inputs) -> Run:
    return Run(
        id=row[0],
        tenant=row[1],
        starter=row[2],
        root_id=row[3],
        parent_id=row[4],
        depth=row[5],
        agent_id=row[6],
        agent_name=row[7],
        agent_revision=row[8],
        agent_owner=row[9],
        session_id=row[10],
        rerun_of=row[11],
        create_us=row[12],
        title=row[13],
        labels=_from_map(row[14]),
        state=RunState(row[15]),
        epoch=row[16],
        owner=row[17],
        lease_until_us=row[18],
        attempt=row[19],
        ready_us=row[20],
        pause=_from_pause(row[21]),
        last_sequence=row[22],
        oldest_sequence=row[23],
        start_us=row[24],
        update_us=row[25],
        finish_us=row[26],
        output_json=row[27],
        output_artifact_id=row[28],
        error=_from_error(row[29]),
        stop=_from_stop(row[30]),
        code_python=row[31],
        code_fingerprint=row[32],
        replay_after=row[33],
        active_us=row[34],
        claim_us=row[35],
        message_count=row[36],
        child_count=row[37],
        input_json=inputs[0],
        input_artifacts=inputs[1],
    )


def approval_values(row: Approval) -> tuple[object, ...]:
    calls = [[call.tool, call.risk.value, call.arguments_json, call.sha256] for call in row.calls]
    return (
        row.id,
        row.tenant,
        row.run_id,
        row.root_id,
        row.step_id,
        row.agent_id,
        row.starter,
        _list(row.approvers),
        row.kind.value,
        row.title,
        row.body,
        row.body_sha256,
        row.evidence_json,
        row.evidence_artifact_id,
        row.answer_schema_json,
        _dumps(calls),
        row.create_us,
        row.state.value,
        row.expire_us,
        row.decide_us,
        row.decided_by,
        None if row.decision is None else row.decision.value,
        row.comment,
        row.answer_json,
    )


def approval_from(row: Row) -> Approval:
    return Approval(
        id=row[0],
        tenant=row[1],
        run_id=row[2],
        root_id=row[3],
        step_id=row[4],
        agent_id=row[5],
        starter=row[6],
        approvers=_from_list(row[7]),
        kind=ApprovalKind(row[8]),
        title=row[9],
        body=row[10],
        body_sha256=row[11],
        evidence_json=row[12],
        evidence_artifact_id=row[13],
        answer_schema_json=row[14],
        calls=tuple(
            ApprovedCall(tool=tool, risk=Risk(risk), arguments_json=arguments, sha256=sha256)
            for tool, risk, arguments, sha256 in json.loads(row[15])
        ),
        create_us=row[16],
        state=ApprovalState(row[17]),
        expire_us=row[18],
        decide_us=row[19],
        decided_by=row[20],
        decision=None if row[21] is None else Decision(row[21]),
        comment=row[22],
        answer_json=row[23],
    )


def artifact_values(row: Artifact) -> tuple[object, ...]:
    return (
        row.id,
        row.tenant,
        row.owner,
        row.run_id,
        row.step_id,
        row.name,
        row.media_type,
        row.size_bytes,
        row.sha256,
        row.create_us,
        row.expire_us,
    )


def artifact_from(row: Row) -> Artifact:
    return Artifact(
        id=row[0],
        tenant=row[1],
        owner=row[2],
        run_id=row[3],
        step_id=row[4],
        name=row[5],
        media_type=row[6],
        size_bytes=row[7],
        sha256=row[8],
        create_us=row[9],
        expire_us=row[10],
    )


def request_values(row: Request) -> tuple[object, ...]:
    key = row.key
    return (
        key.tenant,
        key.principal,
        key.method,
        key.request_id,
        row.body_sha256,
        row.result_id,
        row.create_us,
    )


def request_from(row: Row) -> Request:
    return Request(
        key=RequestKey(row[0], row[1], row[2], row[3]),
        body_sha256=row[4],
        result_id=row[5],
        create_us=row[6],
    )
