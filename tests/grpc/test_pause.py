"""Holding runs and letting them go on, over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
import pytest_asyncio

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as pb
from onbelay_server.app.runs import RunView
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.run import Pause, Run, RunError, StopRequest, Wait
from onbelay_server.domain.state import FailureReason, RunState, StepKind
from onbelay_server.transport.grpc.run_wire import to_run, to_wait
from tests.grpc.steering_server import SteeringDesk, steering_desk
from tests.resources import BEN

Code = grpc.StatusCode


@pytest_asyncio.fixture
async def d() -> AsyncIterator[SteeringDesk]:
    async with steering_desk() as found:
        yield found


async def pause(d: SteeringDesk, run_id: str = "run_1", **more: str) -> run_pb2.Run:
    reply = await d.call(d.runs.PauseRun, pb.PauseRunRequest(run_id=run_id, **more))
    run: run_pb2.Run = reply.run
    return run


async def resume(d: SteeringDesk, run_id: str = "run_1", **more: str) -> run_pb2.Run:
    reply = await d.call(d.runs.ResumeRun, pb.ResumeRunRequest(run_id=run_id, **more))
    run: run_pb2.Run = reply.run
    return run


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.BLOCKED, RunState.WAITING_FOR_INPUT])
async def test_a_run_that_nobody_drives_is_held_at_once(d: SteeringDesk, state: RunState) -> None:
    await d.put_run("run_1", state)
    held = await pause(d)
    assert held.state == run_pb2.RUN_STATE_PAUSED
    assert (held.pause.requested_by, held.pause.in_effect) == ("user:ada", True)
    assert held.pause.request_time.ToMicroseconds() > 0
    assert not held.pause.HasField("error")
    assert not held.pause.HasField("divergence")
    free = await resume(d)
    assert (free.state, free.HasField("pause")) == (run_pb2.RUN_STATE_QUEUED, False)
    assert await d.kinds("run_1") == ["state_changed", "state_changed"]


async def test_a_running_run_is_held_later(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING)
    asked = await pause(d)
    assert asked.state == run_pb2.RUN_STATE_RUNNING
    assert (asked.pause.requested_by, asked.pause.in_effect) == ("user:ada", False)
    free = await resume(d)
    assert (free.state, free.HasField("pause")) == (run_pb2.RUN_STATE_RUNNING, False)
    assert await d.kinds("run_1") == []


async def test_twice_is_once(d: SteeringDesk) -> None:
    await d.put_run("run_1")
    assert await pause(d) == await pause(d)
    assert await resume(d) == await resume(d)
    assert await d.kinds("run_1") == ["state_changed", "state_changed"]


async def test_a_late_repeat_of_a_pause_does_not_undo_the_resume(d: SteeringDesk) -> None:
    await d.put_run("run_1")
    await pause(d, request_id="p1")
    await resume(d, request_id="r1")
    assert (await pause(d, request_id="p1")).state == run_pb2.RUN_STATE_QUEUED
    await pause(d, request_id="p2")
    assert (await resume(d, request_id="r1")).state == run_pb2.RUN_STATE_PAUSED


async def test_a_pause_covers_the_tree(d: SteeringDesk) -> None:
    root = await d.put_run("run_1", RunState.BLOCKED)
    child = await d.put_run("run_2", RunState.QUEUED, parent=root)
    await d.put_run("run_3", RunState.RUNNING, parent=child)
    await d.put_run("run_4", RunState.SUCCEEDED, parent=root)
    other = await d.put_run("run_5", RunState.QUEUED)

    async def states() -> list[str]:
        found = [await d.house.store.run(f"run_{number}") for number in range(1, 6)]
        return [f"{run.state}{'*' if run.pause else ''}" for run in found if run is not None]

    await pause(d)
    assert await states() == ["PAUSED*", "PAUSED*", "RUNNING*", "SUCCEEDED", str(other.state)]
    await resume(d)
    assert await states() == ["QUEUED", "QUEUED", "RUNNING", "SUCCEEDED", "QUEUED"]
    await pause(d, "run_2")
    assert await states() == ["QUEUED", "PAUSED*", "RUNNING*", "SUCCEEDED", "QUEUED"]


@pytest.mark.parametrize("state", [RunState.STOPPED, RunState.FAILED, RunState.STOPPING])
async def test_what_ends_is_not_held(d: SteeringDesk, state: RunState) -> None:
    await d.put_run("run_1", state)
    found = await d.refused(d.runs.PauseRun, pb.PauseRunRequest(run_id="run_1"))
    assert (found.code, found.reason) == (Code.FAILED_PRECONDITION, "RUN_NOT_ACTIVE")
    assert (await resume(d)).state == run_pb2.RunState.Value(f"RUN_STATE_{state}")


async def test_only_starter_and_admin_hold_a_run(d: SteeringDesk) -> None:
    await d.put_run("run_1", starter=BEN)
    for method, request in (
        (d.runs.PauseRun, pb.PauseRunRequest(run_id="run_1")),
        (d.runs.ResumeRun, pb.ResumeRunRequest(run_id="run_1")),
    ):
        for who in ("ada", "rival"):
            assert (await d.refused(method, request, who)).code is Code.NOT_FOUND
        await d.call(method, request, "admin")


async def test_waits_are_shown_by_what_ends_them(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run, is_awaited=True)
    held = await pause(d)
    assert [wait.operation_id for wait in held.waits] == ["op_1"]


# ---- how rows are shown --------------------------------------------------------------------------


def row(**fields: object) -> Run:
    start = Run(
        id="run_1",
        tenant="default",
        starter="user:ada",
        root_id="run_1",
        agent_id="agt_1",
        agent_name="hello",
        agent_revision=1,
        agent_owner="user:ada",
        input_json="{}",
        ready_us=1,
        create_us=1,
        update_us=1,
    )
    return replace(start, **fields)  # type: ignore[arg-type]


def test_a_divergence_is_shown_with_what_was_recorded_and_found() -> None:
    run = row(
        state=RunState.PAUSED,
        pause=Pause(request_us=5, step_id="main:step:a#1", recorded="step a", found="step b"),
        error=RunError(reason=FailureReason.DIVERGED, message="it no longer fits"),
    )
    message = to_run(RunView(run=run, waits=[]))
    assert message.pause.error.reason == run_pb2.RUN_FAILURE_REASON_DIVERGED
    assert not message.HasField("error")
    found = message.pause.divergence
    assert (found.step_id, found.recorded, found.found) == ("main:step:a#1", "step a", "step b")
    assert (message.pause.requested_by, message.pause.in_effect) == ("", True)


@pytest.mark.parametrize("state", [RunState.STOPPING, RunState.STOPPED])
def test_a_stop_ends_a_pause(state: RunState) -> None:
    run = row(state=state, pause=Pause(requested_by="user:ada", request_us=5))
    assert not to_run(RunView(run=run, waits=[])).HasField("pause")


def test_a_stop_names_what_winds_down() -> None:
    stop = StopRequest(
        requested_by="user:ada", reason="", request_us=1, grace_until_us=2, kill_us=3
    )
    parent = row(state=RunState.STOPPING, stop=stop)
    child = row(id="run_2", parent_id="run_1", state=RunState.STOPPING, stop=stop)
    message = to_run(RunView(run=parent, waits=[]), winding_down=[child])
    assert list(message.stop.waiting_for) == ["its worker", "child run run_2"]
    ended = to_run(RunView(run=replace(parent, state=RunState.STOPPED), waits=[]))
    assert not ended.stop.waiting_for


@pytest.mark.parametrize(
    ("wait", "subject"),
    [
        (
            Wait(run_id="r", step_id="s", kind=StepKind.TOOL, since_us=1, approval_id="a"),
            "approval_id",
        ),
        (
            Wait(run_id="r", step_id="s", kind=StepKind.OPERATION, since_us=1, operation_id="o"),
            "operation_id",
        ),
        (
            Wait(run_id="r", step_id="s", kind=StepKind.CHILD, since_us=1, child_run_id="c"),
            "child_run_id",
        ),
        (Wait(run_id="r", step_id="s", kind=StepKind.TIMER, since_us=1, until_us=9), "wake_time"),
        (Wait(run_id="r", step_id="s", kind=StepKind.MESSAGES, since_us=1), "message"),
    ],
)
def test_each_wait_has_its_subject(wait: Wait, subject: str) -> None:
    assert to_wait(wait).WhichOneof("subject") == subject


async def test_a_held_run_keeps_its_waits(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    wait = Wait(run_id=run.id, step_id="main:sleep:#1", kind=StepKind.TIMER, since_us=1, until_us=9)
    await d.house.store.write(
        Reads(runs=[run.id], open_of=[run.id]),
        lambda rows, now_us: Change(result=None, put=[wait]),
    )
    held = await pause(d)
    assert [one.wake_time.ToMicroseconds() for one in held.waits] == [9]
