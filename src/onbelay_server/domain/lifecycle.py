"""How a run moves: every change of state with its event, in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onbelay_server.domain import transition
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import NewEvent
from onbelay_server.domain.error import Changed, FailedPrecondition, Lost
from onbelay_server.domain.event import RunFinished, RunStarted, StateChanged
from onbelay_server.domain.run import Run, RunError, StopRequest
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.domain.transition import Trigger

BACKOFF_US = (0, 1_000_000, 5_000_000, 30_000_000, 120_000_000)
"""How long a run that lost its worker waits before it is claimed again, by attempt."""


def moved(
    run: Run,
    trigger: Trigger,
    target: RunState,
    now_us: int,
    *,
    reason: str = "",
    changed_by: str = "",
    **fields: Any,
) -> tuple[Run, NewEvent]:
    """The run in its new state and the event that says so. `fields` change with it."""
    transition.check(run.state, trigger, target)
    if run.state is RunState.RUNNING and run.claim_us is not None:
        fields.setdefault("active_us", run.active_us + max(now_us - run.claim_us, 0))
        fields.setdefault("claim_us", None)
    after = replace(run, state=target, update_us=now_us, **fields)
    event = StateChanged(
        from_state=run.state,
        to_state=target,
        reason=reason,
        attempt=after.attempt,
        changed_by=changed_by,
    )
    return after, NewEvent(run.id, event)


def launched(run: Run, input_sha256: str) -> NewEvent:
    """The first event of a new run."""
    started = RunStarted(
        agent_id=run.agent_id,
        agent_name=run.agent_name,
        agent_revision=run.agent_revision,
        started_by=run.starter,
        root_run_id=run.root_id,
        parent_run_id=run.parent_id or "",
        rerun_of=run.rerun_of,
        session_id=run.session_id,
        input_sha256=input_sha256,
    )
    return NewEvent(run.id, started)


def check_active(run: Run) -> None:
    """Raise FailedPrecondition (RUN_NOT_ACTIVE) for a run that ended or stops."""
    if not run.state.is_active:
        raise FailedPrecondition(
            f"the run is {run.state}",
            reason="RUN_NOT_ACTIVE",
            metadata={"state": run.state.value},
        )


def fence(run: Run | None, owner: str, epoch: int) -> Run:
    """The run, if it is still this owner's in this epoch. Raises Lost otherwise."""
    if run is None or run.owner != owner or run.epoch != epoch:
        raise Lost("the run has another owner")
    return run


def claimed(run: Run, owner: str, until_us: int, now_us: int) -> tuple[Run, NewEvent]:
    """A worker takes a queued run: a new epoch begins. Raises Changed when it cannot be taken."""
    if run.state is not RunState.QUEUED or run.ready_us > now_us:
        raise Changed("the run is not to be claimed")
    return moved(
        run,
        Trigger.CLAIM,
        RunState.RUNNING,
        now_us,
        owner=owner,
        lease_until_us=until_us,
        epoch=run.epoch + 1,
        attempt=run.attempt + 1,
        start_us=run.start_us or now_us,
        claim_us=now_us,
    )


def given_back(run: Run, now_us: int, reason: str) -> tuple[Run, NewEvent]:
    """The owner lets go of a healthy run, in a drain: it does not count as an attempt."""
    return moved(
        run,
        Trigger.LOSE,
        RunState.QUEUED,
        now_us,
        reason=reason,
        owner=None,
        lease_until_us=None,
        ready_us=now_us,
        attempt=max(run.attempt - 1, 0),
    )


def worker_lost(
    run: Run, now_us: int, reason: str, *, max_attempts: int = Limits().max_attempts
) -> tuple[Run, list[NewEvent]]:
    """The worker of a running run is gone: it waits its turn again, or its attempts are spent."""
    if run.attempt >= max_attempts:
        error = RunError(
            reason=FailureReason.CRASH_LOOP,
            message=f"{run.attempt} attempts without a new recorded step; the last: {reason}",
        )
        return ended(run, Trigger.EXHAUST, RunState.FAILED, now_us, error=error)
    ready_us = now_us + BACKOFF_US[min(max(run.attempt - 1, 0), len(BACKOFF_US) - 1)]
    after, event = moved(
        run,
        Trigger.LOSE,
        RunState.QUEUED,
        now_us,
        reason=reason,
        owner=None,
        lease_until_us=None,
        ready_us=ready_us,
    )
    return after, [event]


def ended(
    run: Run,
    trigger: Trigger,
    target: RunState,
    now_us: int,
    *,
    reason: str = "",
    changed_by: str = "",
    output_json: str | None = None,
    output_artifact_id: str = "",
    error: RunError | None = None,
    stop: StopRequest | None = None,
) -> tuple[Run, list[NewEvent]]:
    """The run in its final state, with StateChanged and RunFinished, which is its last event."""
    stop = stop or run.stop
    after, changed = moved(
        run,
        trigger,
        target,
        now_us,
        reason=reason or (error.message if error else ""),
        changed_by=changed_by,
        owner=None,
        lease_until_us=None,
        finish_us=now_us,
        output_json=output_json,
        output_artifact_id=output_artifact_id,
        error=error,
        stop=stop,
    )
    finished = RunFinished(
        state=target,
        output_json=output_json,
        output_artifact_id=output_artifact_id,
        error=error,
        not_stopped=stop.unstoppable if stop else (),
    )
    return after, [changed, NewEvent(run.id, finished)]
