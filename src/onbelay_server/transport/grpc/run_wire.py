"""Runs between the domain and the wire."""

from __future__ import annotations

from collections.abc import Sequence

from onbelay.v1 import run_filter_pb2, run_pb2, wait_pb2
from onbelay_server.app.runs import RunView
from onbelay_server.domain.run import Run, RunError, Wait
from onbelay_server.domain.state import RunState, StepKind
from onbelay_server.ports.store import RunFilter
from onbelay_server.transport.grpc.wire import from_timestamp, to_optional_timestamp, to_timestamp


def to_run_state(state: RunState) -> run_pb2.RunState.ValueType:
    return run_pb2.RunState.Value(f"RUN_STATE_{state.value}")


def to_run_error(error: RunError) -> run_pb2.RunError:
    """Why a run failed or is held."""
    reason = run_pb2.RunFailureReason.Value(f"RUN_FAILURE_REASON_{error.reason.value}")
    return run_pb2.RunError(reason=reason, message=error.message)


def to_wait(wait: Wait) -> wait_pb2.Wait:
    message = wait_pb2.Wait(
        step_id=wait.step_id,
        since=to_timestamp(wait.since_us),
        until=to_optional_timestamp(wait.until_us),
    )
    if wait.approval_id:
        message.approval_id = wait.approval_id
    elif wait.operation_id:
        message.operation_id = wait.operation_id
    elif wait.child_run_id:
        message.child_run_id = wait.child_run_id
    elif wait.kind is StepKind.TIMER and wait.until_us is not None:
        message.wake_time.CopyFrom(to_timestamp(wait.until_us))
    elif wait.kind is StepKind.MESSAGES:
        message.message = True
    return message


def to_run(view: RunView, *, is_full: bool = True, winding_down: Sequence[Run] = ()) -> run_pb2.Run:
    """The run as callers see it; lists leave out input and output. `winding_down` are its
    descendants that are stopping."""
    message = to_bare_run(view.run, is_full=is_full)
    message.waits.extend(to_wait(wait) for wait in view.waits)
    if view.run.stop is not None:
        message.stop.waiting_for.extend(f"child run {run.id}" for run in winding_down)
    return message


def to_bare_run(run: Run, *, is_full: bool = True) -> run_pb2.Run:
    """The run without what it waits for, from its row alone."""
    message = run_pb2.Run(
        id=run.id,
        agent_id=run.agent_id,
        agent_name=run.agent_name,
        agent_revision=run.agent_revision,
        state=to_run_state(run.state),
        title=run.title,
        labels=dict(run.labels),
        started_by=run.starter,
        create_time=to_timestamp(run.create_us),
        start_time=to_optional_timestamp(run.start_us),
        update_time=to_timestamp(run.update_us),
        finish_time=to_optional_timestamp(run.finish_us),
        attempt=run.attempt,
        epoch=run.epoch,
        last_sequence=run.last_sequence,
        oldest_sequence=run.oldest_sequence,
        parent_run_id=run.parent_id or "",
        root_run_id=run.root_id,
        rerun_of=run.rerun_of,
        session_id=run.session_id,
        output_artifact_id=run.output_artifact_id,
        input_artifacts=dict(run.input_artifacts),
        error=to_run_error(run.error) if run.error and run.state is RunState.FAILED else None,
        stop=_to_stop(run),
        pause=_to_pause(run),
    )
    if run.state is RunState.QUEUED:
        message.ready_time.CopyFrom(to_timestamp(run.ready_us))
    if is_full:
        message.input_json = run.input_json
        if run.output_json is not None:
            message.output_json = run.output_json
    return message


def _to_stop(run: Run) -> run_pb2.RunStop | None:
    stop = run.stop
    if stop is None:
        return None
    is_below = bool(stop.root_id) and stop.root_id != run.id
    return run_pb2.RunStop(
        requested_by=stop.requested_by,
        reason=stop.reason,
        cause=(run_pb2.STOP_CAUSE_PARENT_ENDED if is_below else run_pb2.STOP_CAUSE_REQUESTED),
        request_time=to_timestamp(stop.request_us),
        waiting_for=["its worker"] if run.state is RunState.STOPPING else [],
        grace_until=to_timestamp(stop.grace_until_us),
        kill_at=to_timestamp(stop.kill_us),
        not_stopped=stop.unstoppable,
    )


def _to_pause(run: Run) -> run_pb2.RunPause | None:
    pause = run.pause
    if pause is None or not run.state.is_active:
        return None
    is_held = run.state is RunState.PAUSED
    message = run_pb2.RunPause(
        requested_by=pause.requested_by,
        request_time=to_timestamp(pause.request_us),
        in_effect=is_held,
        error=to_run_error(run.error) if run.error and is_held else None,
    )
    if pause.step_id:
        message.divergence.step_id = pause.step_id
        message.divergence.recorded = pause.recorded
        message.divergence.found = pause.found
    return message


def filter_of(message: run_filter_pb2.RunFilter) -> RunFilter:
    """The filter, validated before; a time that is not one raises InvalidArgument."""
    has_from, has_before = message.HasField("created_from"), message.HasField("created_before")
    return RunFilter(
        agent_ids=tuple(message.agents),
        states=tuple(
            RunState(run_pb2.RunState.Name(state).removeprefix("RUN_STATE_"))
            for state in message.states
        ),
        labels=dict(message.labels),
        session_id=message.session_id,
        starter=message.started_by,
        parent_id=message.parent_run_id,
        roots_only=message.roots_only,
        created_from_us=(
            from_timestamp(message.created_from, "filter.created_from") if has_from else None
        ),
        created_before_us=(
            from_timestamp(message.created_before, "filter.created_before") if has_before else None
        ),
    )
