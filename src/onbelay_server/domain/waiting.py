"""How runs wait for somebody else, and what ends a wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onbelay_server.domain.approval import Approval
from onbelay_server.domain.change import Entity, NewEvent, Rows
from onbelay_server.domain.event import (
    ApprovalExpired,
    ApprovalVoided,
    OperationExpired,
    TimerFired,
)
from onbelay_server.domain.lifecycle import moved
from onbelay_server.domain.operation import Operation, OperationState
from onbelay_server.domain.run import Run, Wait, waiting_state
from onbelay_server.domain.state import ApprovalState, RunState, StepKind
from onbelay_server.domain.transition import Trigger

LAST_US = 253_402_300_799 * 1_000_000
"""The last second of the year 9999: no later time can be written in the contract."""


def parked(run: Run, waits: list[Wait], now_us: int) -> tuple[Run, NewEvent]:
    """A running run whose every branch waits gives its worker back."""
    return moved(
        run,
        Trigger.PARK,
        waiting_state(waits),
        now_us,
        owner=None,
        lease_until_us=None,
        attempt=0,
    )


def resolved(run: Run, now_us: int, reason: str) -> tuple[Run, list[NewEvent]]:
    """One of the run's waits ended. A parked run is to be claimed; a held one is only touched."""
    if not run.state.is_waiting:
        return replace(run, update_us=now_us), []
    after, event = moved(
        run, Trigger.RESOLVE, RunState.QUEUED, now_us, reason=reason, ready_us=now_us
    )
    return after, [event]


def due(
    rows: Rows, run: Run, wait: Wait, now_us: int
) -> tuple[Run, list[Entity], list[NewEvent]] | None:
    """A wait reached its end by itself: a timer fires, an approval or an operation expires.

    None when nothing of that kind ends it: it has been the longest wait the run may have."""
    if wait.kind is StepKind.TIMER:
        event = NewEvent(run.id, TimerFired(due_us=wait.until_us or now_us), wait.step_id)
        return _ended_by(run, event, [], now_us, "a timer fired")
    approval = rows.approval(wait.approval_id) if wait.approval_id else None
    if approval is not None and approval.state is ApprovalState.PENDING:
        expired = replace(approval, state=ApprovalState.EXPIRED, decide_us=now_us)
        event = NewEvent(run.id, ApprovalExpired(approval_id=approval.id), wait.step_id)
        return _ended_by(run, event, [expired], now_us, "an approval expired")
    operation = rows.operation(wait.operation_id) if wait.operation_id else None
    if operation is not None and _has_expired(operation, now_us):
        late = replace(operation, state=OperationState.EXPIRED)
        event = NewEvent(run.id, OperationExpired(operation_id=operation.id), wait.step_id)
        return _ended_by(run, event, [late], now_us, "an operation expired")
    return None


def _has_expired(operation: Operation, now_us: int) -> bool:
    is_late = operation.expire_us is not None and operation.expire_us <= now_us
    return is_late and operation.state is OperationState.OPEN


def _ended_by(
    run: Run, event: NewEvent, put: list[Entity], now_us: int, reason: str
) -> tuple[Run, list[Entity], list[NewEvent]]:
    after, moves = resolved(run, now_us, reason)
    return after, put, [event, *moves]


def voided(
    run_id: str, approvals: Sequence[Approval], reason: str, now_us: int
) -> tuple[list[Approval], list[NewEvent]]:
    """Pending approvals that lost their object."""
    after = [replace(one, state=ApprovalState.VOIDED, decide_us=now_us) for one in approvals]
    events = [
        NewEvent(run_id, ApprovalVoided(approval_id=one.id, reason=reason), one.step_id)
        for one in approvals
    ]
    return after, events


def closed(
    rows: Rows, run_id: str, reason: str, now_us: int
) -> tuple[list[Entity], list[NewEvent]]:
    """Approvals and operations of a run that ends."""
    approvals, events = voided(run_id, rows.pending_approvals(run_id), reason, now_us)
    operations = [replace(one, state=OperationState.VOIDED) for one in rows.open_operations(run_id)]
    return [*approvals, *operations], events
