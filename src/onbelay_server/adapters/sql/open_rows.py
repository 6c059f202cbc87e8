"""What is open of a run as rows, column by column: waits, operations, unread messages."""

from __future__ import annotations

import json

from onbelay_server.adapters.sql.rows import Row
from onbelay_server.domain.effect import StepError
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation, OperationState
from onbelay_server.domain.run import Wait
from onbelay_server.domain.state import StepKind


def wait_values(wait: Wait, ordinal: int) -> tuple[object, ...]:
    """`ordinal` grows in the order the waits were asked."""
    return (
        wait.run_id,
        wait.step_id,
        wait.kind.value,
        wait.since_us,
        wait.until_us,
        wait.approval_id,
        wait.operation_id,
        wait.child_run_id,
        ordinal,
    )


def wait_from(row: Row) -> Wait:
    return Wait(
        run_id=row[0],
        step_id=row[1],
        kind=StepKind(row[2]),
        since_us=row[3],
        until_us=row[4],
        approval_id=row[5],
        operation_id=row[6],
        child_run_id=row[7],
    )


def operation_values(row: Operation) -> tuple[object, ...]:
    return (
        row.id,
        row.tenant,
        row.run_id,
        row.root_id,
        row.starter,
        row.agent_owner,
        row.step_id,
        row.name,
        row.result_schema_json,
        row.token_sha256,
        row.create_us,
        row.state.value,
        row.expire_us,
        row.complete_us,
        row.completed_by,
        row.result_json,
        _error(row.error),
    )


def operation_from(row: Row) -> Operation:
    return Operation(
        id=row[0],
        tenant=row[1],
        run_id=row[2],
        root_id=row[3],
        starter=row[4],
        agent_owner=row[5],
        step_id=row[6],
        name=row[7],
        result_schema_json=row[8],
        token_sha256=row[9],
        create_us=row[10],
        state=OperationState(row[11]),
        expire_us=row[12],
        complete_us=row[13],
        completed_by=row[14],
        result_json=row[15],
        error=_from_error(row[16]),
    )


def _error(error: StepError | None) -> str | None:
    if error is None:
        return None
    values = [error.type, error.message, error.reason, error.data_json]
    return json.dumps(values, ensure_ascii=False)


def _from_error(text: str | None) -> StepError | None:
    if text is None:
        return None
    kind, message, reason, data_json = json.loads(text)
    return StepError(type=kind, message=message, reason=reason, data_json=data_json)


def message_values(row: Message) -> tuple[object, ...]:
    return (row.id, row.run_id, row.number)


def message_from(row: Row) -> Message:
    return Message(id=row[0], run_id=row[1], number=row[2])
