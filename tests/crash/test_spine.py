"""`kill -9` of the server, and what is there after it is started again.

One server is killed with four runs in its hands, each at another point; one after it takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as pb
from onbelay.v1.approval_pb2 import Approval
from onbelay.v1.watch_request_pb2 import WatchRunRequest
from tests.checker import judge
from tests.grpc.spine_server import final_of
from tests.recorder import Recorder, Recording
from tests.server import child_server, serving

pytestmark = [pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]

SUCCEEDED = run_pb2.RUN_STATE_SUCCEEDED
AGENTS = ("asker", "counter", "sleeper")
JUST_STARTED = pb.StartRunRequest(request_id="once", agent="counter", input_json='{"steps":3}')


@dataclass
class Aftermath:
    """What was in the hands of the server that was killed, and a client of the next."""

    folder: Path
    client: Recorder
    just_started: str
    in_step: str
    held_through: int
    asking: str
    approval: Approval
    stopping: str


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def written(path: Path, count: int) -> None:
    """Return once the file has so many lines."""
    async with asyncio.timeout(20):
        while len(lines(path)) < count:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def after(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    folder = tmp_path_factory.mktemp("crash")
    recording = Recording()
    ledger, gate, prepared = folder / "ledger", folder / "gate", folder / "prepared"
    async with child_server(folder, recording, agents=AGENTS) as first:
        client = first.client
        stopping = await client.start("sleeper", {"in_step": True})
        await client.reached(stopping, "RUNNING")
        asking = await client.start("asker", {"ledger": str(prepared)})
        approval = await client.pending(asking)
        values = {"steps": 4, "ledger": str(ledger), "gate": str(gate)}
        in_step = await client.start("counter", values)
        await written(ledger, 4)
        async with client.stream("WatchRun", WatchRunRequest(run_id=in_step), "w") as stream:
            reply = await stream.until(lambda one: one.complete_through > 4)
        await client.stop(stopping)
        started = await client.call("StartRun", JUST_STARTED)
        await first.kill()
    gate.touch()
    async with AsyncExitStack() as stack:
        second = await stack.enter_async_context(child_server(folder, recording, agents=AGENTS))
        yield Aftermath(
            folder=folder,
            client=second.client,
            just_started=started.run.id,
            in_step=in_step,
            held_through=reply.complete_through,
            asking=asking,
            approval=approval,
            stopping=stopping,
        )
    final = await final_of(second.database)
    assert judge(recording, final) == []
    assert len(final.runs) == 4


async def test_a_run_is_there_after_a_kill_right_after_its_start_was_answered(
    after: Aftermath,
) -> None:
    again = await after.client.call("StartRun", JUST_STARTED)
    assert (again.run.id, again.already_started) == (after.just_started, True)
    run = await after.client.finished(after.just_started)
    assert (run.state, run.output_json) == (SUCCEEDED, "6")


async def test_no_recorded_step_is_repeated(after: Aftermath) -> None:
    more = WatchRunRequest(run_id=after.in_step, after_sequence=after.held_through)
    async with after.client.stream("WatchRun", more, "w") as rest:
        await rest.rest()
    run = await after.client.get(after.in_step)
    assert (run.state, run.output_json, run.epoch) == (SUCCEEDED, "10", 2)
    assert lines(after.folder / "ledger") == ["1", "2", "3", "4", "4"]
    events = await after.client.events(after.in_step)
    assert sum(event.HasField("step_restarted") for event in events) == 1


async def test_an_approval_is_decided_after_the_kill(after: Aftermath) -> None:
    client = after.client
    assert (await client.pending(after.asking)).id == after.approval.id
    await client.decide(after.approval, "APPROVE")
    await client.decide(await client.pending(after.asking), "ANSWER", answer_json='"blue"')
    run = await client.finished(after.asking)
    assert run.output_json == '"user:developer: blue"'
    assert lines(after.folder / "prepared") == ["prepared"]


async def test_a_stop_is_kept(after: Aftermath) -> None:
    run = await after.client.finished(after.stopping)
    assert (run.state, run.stop.reason) == (run_pb2.RUN_STATE_STOPPED, "enough")


async def test_a_child_that_dies_is_begun_again(tmp_path: Path) -> None:
    recording = Recording()
    values = {"ledger": str(tmp_path / "ledger"), "times": 1}
    async with serving(tmp_path, recording, agents=["crasher"]) as server:
        run_id = await server.client.start("crasher", values)
        run = await server.client.finished(run_id)
        assert (run.state, run.output_json, run.epoch) == (SUCCEEDED, "2", 2)
    assert judge(recording, await final_of(server.database)) == []
