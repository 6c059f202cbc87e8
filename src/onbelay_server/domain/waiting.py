"""How runs wait for somebody else, and what ends a wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onbelay_server.domain.approval import Approval
from onbelay_server.domain.change import Change, NewEvent, Rows
from onbelay_server.domain.event import ApprovalExpired, ApprovalVoided, TimerFired
from onbelay_server.domain.lifecycle import moved
from onbelay_server.domain.run import Run, Wait, waiting_state
from onbelay_server.domain.state import ApprovalState, RunState
from onbelay_server.domain.transition import Trigger


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
    run: Run, wait: Wait, approval: Approval | None, now_us: int
) -> tuple[Run, list[NewEvent], Approval | None]:
    """A wait reached its end by itself: a timer fires, an approval expires."""
    if approval is not None and approval.state is ApprovalState.PENDING:
        expired = replace(approval, state=ApprovalState.EXPIRED, decide_us=now_us)
        events = [NewEvent(run.id, ApprovalExpired(approval_id=approval.id), wait.step_id)]
        after, moves = resolved(run, now_us, "an approval expired")
        return after, [*events, *moves], expired
    fired = NewEvent(run.id, TimerFired(due_us=wait.until_us or now_us), wait.step_id)
    after, moves = resolved(run, now_us, "a timer fired")
    return after, [fired, *moves], None


def concluded(rows: Rows, after: Run, moves: Sequence[NewEvent], now_us: int) -> Change[None]:
    """The unit by which a run is let go. Of one that ended nothing stays open: its pending
    approvals are voided, its waits are gone. The unit must read what is `open_of` the run."""
    if not after.state.is_final:
        return Change(result=None, put=[after], events=moves)
    pending = rows.pending_approvals(after.id)
    approvals, lost = voided(after.id, pending, "the run ended", now_us)
    return Change(
        result=None,
        put=[after, *approvals],
        delete=rows.waits(after.id),
        events=[*lost, *moves],
    )


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
