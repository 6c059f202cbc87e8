"""Holding, resuming and talking to runs that really work."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as pb
from tests.grpc.spine_server import judged_server
from tests.recorder import Recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    folder = tmp_path_factory.mktemp("pause")
    async with judged_server(folder, agents=("counter", "listener", "sleeper")) as server:
        yield server.client


async def test_a_working_run_is_held_behind_its_step_and_goes_on(
    client: Recorder, tmp_path: Path
) -> None:
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    run_id = await client.start("counter", {"steps": 2, "ledger": str(ledger), "gate": str(gate)})
    await client.reached(run_id, "RUNNING")
    asked = (await client.call("PauseRun", pb.PauseRunRequest(run_id=run_id))).run
    gate.touch()
    held = await client.reached(run_id, "PAUSED", "SUCCEEDED")
    assert asked.pause.in_effect or asked.state == run_pb2.RUN_STATE_RUNNING
    if held.state == run_pb2.RUN_STATE_PAUSED:
        assert held.pause.in_effect
        await client.call("ResumeRun", pb.ResumeRunRequest(run_id=run_id))
    assert (await client.finished(run_id)).output_json == "3"
    assert ledger.read_text().split() == ["1", "2"]


async def test_a_timer_fires_while_a_run_is_held(client: Recorder) -> None:
    run_id = await client.start("sleeper", {"seconds": 2.0})
    await client.reached(run_id, "BLOCKED")
    held = (await client.call("PauseRun", pb.PauseRunRequest(run_id=run_id))).run
    assert held.state == run_pb2.RUN_STATE_PAUSED
    timer = pb.WaitRunRequest(run_id=run_id)
    timer.timeout.FromMilliseconds(3_000)
    assert (await client.call("WaitRun", timer)).timed_out
    kinds = [one.WhichOneof("payload") for one in await client.events(run_id)]
    assert kinds.count("timer_fired") == 1
    await client.call("ResumeRun", pb.ResumeRunRequest(run_id=run_id))
    assert (await client.finished(run_id)).output_json == '"rested"'


async def test_a_held_run_can_be_stopped(client: Recorder) -> None:
    run_id = await client.start("sleeper")
    await client.reached(run_id, "BLOCKED")
    await client.call("PauseRun", pb.PauseRunRequest(run_id=run_id))
    stopped = await client.stop(run_id)
    assert (stopped.state, stopped.HasField("pause")) == (run_pb2.RUN_STATE_STOPPED, False)


async def test_messages_reach_the_agent_once_and_in_order(client: Recorder) -> None:
    run_id = await client.start("listener", {"last": "end"})
    assert (await client.get(run_id)).accepts_messages
    for number in range(20):
        said = pb.SendMessageRequest(run_id=run_id, text=str(number + 1))
        await client.call("SendMessage", said)
    waiting = await client.reached(run_id, "WAITING_FOR_INPUT")
    assert [wait.WhichOneof("subject") for wait in waiting.waits] == ["message"]
    await client.call("PauseRun", pb.PauseRunRequest(run_id=run_id))
    await client.call("SendMessage", pb.SendMessageRequest(run_id=run_id, text="held"))
    await client.call("ResumeRun", pb.ResumeRunRequest(run_id=run_id))
    await client.call("SendMessage", pb.SendMessageRequest(run_id=run_id, text="end"))
    run = await client.finished(run_id)
    heard = [*(str(number + 1) for number in range(20)), "held", "end"]
    assert json.loads(run.output_json) == heard


async def test_a_message_is_heard_though_its_call_timed_out_while_the_run_was_held(
    client: Recorder,
) -> None:
    run_id = await client.start("listener", {"last": "end", "patience": 2.0})
    await client.reached(run_id, "WAITING_FOR_INPUT")
    await client.call("PauseRun", pb.PauseRunRequest(run_id=run_id))
    timer = pb.WaitRunRequest(run_id=run_id)
    timer.timeout.FromMilliseconds(3_000)
    assert (await client.call("WaitRun", timer)).timed_out
    for text in ("first", "end"):
        await client.call("SendMessage", pb.SendMessageRequest(run_id=run_id, text=text))
    await client.call("ResumeRun", pb.ResumeRunRequest(run_id=run_id))
    run = await client.finished(run_id)
    assert json.loads(run.output_json) == ["first", "end"]
    events = await client.events(run_id)
    fired = next(one for one in events if one.HasField("timer_fired"))
    taken = next(one for one in events if one.HasField("message_read"))
    assert fired.sequence < taken.sequence, "the case that is meant"
