"""Something a run began that finishes outside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from onbelay_server.domain.effect import StepError
from onbelay_server.domain.error import FailedPrecondition


class OperationState(StrEnum):
    """Where an operation stands; all but OPEN are final."""

    OPEN = "OPEN"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    VOIDED = "VOIDED"
    """Its run ended first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. Whoever holds its token may complete it, and nothing else."""

    id: str
    tenant: str
    run_id: str
    root_id: str
    starter: str
    agent_owner: str
    step_id: str
    """The call that began it."""
    name: str
    result_schema_json: str = ""
    token_sha256: str
    """Lower-case hex; the token itself is nowhere stored."""
    state: OperationState = OperationState.OPEN
    result_json: str | None = None
    error: StepError | None = None
    create_us: int
    expire_us: int | None = None
    complete_us: int | None = None
    completed_by: str = ""
    """Empty when its own token did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationOutcome:
    """How an operation ended: a result or an error."""

    result_json: str | None = None
    error: StepError | None = None


def completed(
    operation: Operation, outcome: OperationOutcome, completed_by: str, now_us: int
) -> Operation | None:
    """The operation with its outcome, or None when it already has exactly this one.

    Raises FailedPrecondition (OPERATION_CLOSED) for another outcome, or when it expired or its run
    ended first."""
    if operation.state is OperationState.OPEN:
        if operation.expire_us is not None and now_us >= operation.expire_us:
            raise _closed("it has expired", operation)
        state = OperationState.FAILED if outcome.error else OperationState.SUCCEEDED
        return replace(
            operation,
            state=state,
            result_json=outcome.result_json,
            error=outcome.error,
            complete_us=now_us,
            completed_by=completed_by,
        )
    if (operation.result_json, operation.error) == (outcome.result_json, outcome.error):
        return None
    raise _closed("it was completed otherwise, expired, or its run ended", operation)


def _closed(why: str, operation: Operation) -> FailedPrecondition:
    return FailedPrecondition(
        f"the operation is closed: {why}",
        reason="OPERATION_CLOSED",
        metadata={"state": operation.state.value},
    )
