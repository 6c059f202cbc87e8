"""`kill -9` of the server, and what is there after it is started again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as pb
from onbelay.v1.watch_request_pb2 import WatchRunRequest
from tests.checker import judge
from tests.grpc.spine_server import final_of
from tests.recorder import Recording
from tests.server import child_server, serving

pytestmark = pytest.mark.timeout(60)

SUCCEEDED = run_pb2.RUN_STATE_SUCCEEDED


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def written(path: Path, count: int) -> None:
    """Return once the file has so many lines."""
    async with asyncio.timeout(20):
        while len(lines(path)) < count:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)


async def test_a_run_is_there_after_a_kill_right_after_its_start_was_answered(
    tmp_path: Path,
) -> None:
    recording = Recording()
    request = pb.StartRunRequest(request_id="once", agent="counter", input_json='{"steps":3}')
    async with child_server(tmp_path, recording, agents=["counter"]) as server:
        started = await server.client.call("StartRun", request)
        await server.kill()
    async with child_server(tmp_path, recording, agents=["counter"]) as server:
        again = await server.client.call("StartRun", request)
        assert (again.run.id, again.already_started) == (started.run.id, True)
        run = await server.client.finished(started.run.id)
        assert (run.state, run.output_json) == (SUCCEEDED, "6")
    final = await final_of(f"sqlite:///{tmp_path / 'onbelay.db'}")
    assert judge(recording, final) == []
    assert len(final.runs) == 1


async def test_no_recorded_step_is_repeated_after_a_kill(tmp_path: Path) -> None:
    recording = Recording()
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    values = {"steps": 4, "ledger": str(ledger), "gate": str(gate)}
    async with child_server(tmp_path, recording, agents=["counter"]) as server:
        run_id = await server.client.start("counter", values)
        await written(ledger, 4)
        async with server.client.stream("WatchRun", WatchRunRequest(run_id=run_id), "w") as stream:
            while len(stream.exchange.replies) < 2:
                await stream.next()
        await server.kill()
    gate.touch()
    async with child_server(tmp_path, recording, agents=["counter"]) as server:
        held = max(reply.complete_through for _, reply in stream.exchange.replies)
        more = WatchRunRequest(run_id=run_id, after_sequence=held)
        async with server.client.stream("WatchRun", more, "w") as rest:
            await rest.rest()
        run = await server.client.get(run_id)
        assert (run.state, run.output_json, run.epoch) == (SUCCEEDED, "10", 2)
    assert lines(ledger) == ["1", "2", "3", "4", "4"]
    final = await final_of(f"sqlite:///{tmp_path / 'onbelay.db'}")
    assert judge(recording, final) == []
    restarted = [e.step_id for e in final.logs[run_id] if e.HasField("step_restarted")]
    assert len(restarted) == 1


async def test_an_approval_is_decided_after_a_kill(tmp_path: Path) -> None:
    recording = Recording()
    ledger = tmp_path / "ledger"
    async with child_server(tmp_path, recording, agents=["asker"]) as server:
        run_id = await server.client.start("asker", {"ledger": str(ledger)})
        approval = await server.client.pending(run_id)
        await server.kill()
    async with child_server(tmp_path, recording, agents=["asker"]) as server:
        assert (await server.client.pending(run_id)).id == approval.id
        await server.client.decide(approval, "APPROVE")
        await server.client.decide(
            await server.client.pending(run_id), "ANSWER", answer_json='"blue"'
        )
        run = await server.client.finished(run_id)
        assert run.output_json == '"user:developer: blue"'
    assert lines(ledger) == ["prepared"]
    assert judge(recording, await final_of(f"sqlite:///{tmp_path / 'onbelay.db'}")) == []


async def test_a_stop_is_kept_through_a_kill(tmp_path: Path) -> None:
    recording = Recording()
    async with child_server(tmp_path, recording, agents=["sleeper"]) as server:
        run_id = await server.client.start("sleeper", {"in_step": True})
        await server.client.reached(run_id, "RUNNING")
        await server.client.stop(run_id)
        await server.kill()
    async with child_server(tmp_path, recording, agents=["sleeper"]) as server:
        run = await server.client.finished(run_id)
        assert (run.state, run.stop.reason) == (run_pb2.RUN_STATE_STOPPED, "enough")
    assert judge(recording, await final_of(f"sqlite:///{tmp_path / 'onbelay.db'}")) == []


async def test_a_child_that_dies_is_begun_again(tmp_path: Path) -> None:
    recording = Recording()
    ledger = tmp_path / "ledger"
    async with serving(tmp_path, recording, agents=["crasher"]) as server:
        run_id = await server.client.start("crasher", {"ledger": str(ledger), "times": 1})
        run = await server.client.finished(run_id)
        assert (run.state, run.output_json, run.epoch) == (SUCCEEDED, "2", 2)
    assert judge(recording, await final_of(f"sqlite:///{tmp_path / 'onbelay.db'}")) == []
