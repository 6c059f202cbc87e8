"""Trees of runs over the wire: how they are shown, held, stopped and deleted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from grpc import StatusCode

from onbelay.v1 import agent_pb2, run_filter_pb2, run_pb2
from onbelay.v1 import agent_service_pb2 as agents
from onbelay.v1 import run_request_pb2 as pb
from tests.grpc.spine_server import judged_server
from tests.recorder import Recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    folder = tmp_path_factory.mktemp("tree")
    agents = ("brancher", "counter", "hello", "sleeper")
    async with judged_server(folder, agents=agents) as server:
        yield server.client


async def below(client: Recorder, run_id: str) -> list[run_pb2.Run]:
    """The children of a run, newest first."""
    which = run_filter_pb2.RunFilter(parent_run_id=run_id)
    return list((await client.call("ListRuns", pb.ListRunsRequest(filter=which))).runs)


async def grown(client: Recorder, run_id: str, depth: int, width: int) -> list[run_pb2.Run]:
    """All descendants, once all of them wait."""
    await client.reached(run_id, "BLOCKED")
    found: list[run_pb2.Run] = []
    for child in await below(client, run_id):
        found += [child, *(await grown(client, child.id, depth - 1, width))]
    return found


async def test_a_tree_gives_its_leaves_outputs(client: Recorder) -> None:
    run_id = await client.start("brancher", {"depth": 2, "width": 2}, labels={"a": "b"})
    run = await client.finished(run_id)
    assert run.output_json is not None
    assert len(json.loads(run.output_json)) == 4
    children = await below(client, run_id)
    assert [one.parent_run_id for one in children] == [run_id, run_id]
    assert {one.root_run_id for one in children} == {run_id}
    assert {one.started_by for one in children} == {run.started_by}
    assert all(dict(one.labels) == {"a": "b"} for one in children)
    events = await client.events(run_id)
    kinds = ("child_run_started", "child_run_finished")
    started, ended = (
        [getattr(one, kind).child_run_id for one in events if one.HasField(kind)] for kind in kinds
    )
    assert started == [one.id for one in reversed(children)]
    assert sorted(ended) == sorted(started)
    roots = run_filter_pb2.RunFilter(roots_only=True)
    listed = (await client.call("ListRuns", pb.ListRunsRequest(filter=roots))).runs
    assert run_id in [one.id for one in listed]
    assert not {one.id for one in children} & {one.id for one in listed}


async def test_a_childs_failure_is_its_parents_to_handle(client: Recorder) -> None:
    run_id = await client.start(
        "brancher",
        {"width": 1, "leaf": "counter", "values": {"steps": 1, "ledger": "/nonexistent/ledger"}},
    )
    run = await client.finished(run_id)
    assert (run.state, json.loads(run.output_json)[0][:6]) == (
        run_pb2.RUN_STATE_SUCCEEDED,
        "failed",
    )


async def test_a_child_that_asks_for_what_is_not_done_is_not_started(client: Recorder) -> None:
    careful = agent_pb2.Agent(name="careful", blueprint="hello")
    careful.budget.max_tool_calls = 0
    await client.call("CreateAgent", agents.CreateAgentRequest(agent=careful))
    run_id = await client.start("brancher", {"width": 1, "leaf": "careful"})
    run = await client.finished(run_id)
    assert run.state == run_pb2.RUN_STATE_FAILED
    assert "'careful' cannot be started: this version does nothing for budget" in run.error.message
    assert await below(client, run_id) == []


async def test_a_stop_reaches_the_whole_tree(client: Recorder) -> None:
    run_id = await client.start("brancher", {"depth": 3, "width": 2, "leaf": "sleeper"})
    tree = await grown(client, run_id, 3, 2)
    assert len(tree) == 14
    waits = (await client.get(run_id)).waits
    assert {one.child_run_id for one in waits} <= {one.id for one in tree}
    assert (await client.stop(run_id, "all of it")).state == run_pb2.RUN_STATE_STOPPED
    for child in tree:
        ended = await client.finished(child.id)
        assert (ended.state, ended.stop.reason) == (run_pb2.RUN_STATE_STOPPED, "all of it")
        assert ended.stop.cause == run_pb2.STOP_CAUSE_PARENT_ENDED


async def test_a_stopped_run_names_descendants_that_wind_down(client: Recorder) -> None:
    run_id = await client.start("brancher", {"width": 1, "leaf": "sleeper"})
    await grown(client, run_id, 1, 1)
    (child,) = await below(client, run_id)
    stopped = await client.stop(run_id)
    # Nobody drove them: nothing is left to wait for.
    assert list(stopped.stop.waiting_for) == []
    assert (await client.finished(child.id)).state == run_pb2.RUN_STATE_STOPPED


async def test_a_pause_holds_the_whole_tree(client: Recorder) -> None:
    run_id = await client.start("brancher", {"depth": 2, "width": 2, "leaf": "sleeper"})
    tree = await grown(client, run_id, 2, 2)
    await client.call("PauseRun", pb.PauseRunRequest(run_id=run_id))
    assert {(await client.get(one.id)).state for one in tree} == {run_pb2.RUN_STATE_PAUSED}
    await client.call("ResumeRun", pb.ResumeRunRequest(run_id=run_id))
    for one in tree:
        await client.reached(one.id, "BLOCKED")
    await client.stop(run_id)


async def test_a_tree_is_deleted_as_a_whole(client: Recorder) -> None:
    run_id = await client.start("brancher", {"width": 2})
    await client.finished(run_id)
    children = await below(client, run_id)
    part = await client.exchange("DeleteRun", pb.DeleteRunRequest(run_id=children[0].id))
    assert (part.code, part.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert part.metadata == {"root_run_id": run_id}
    gone = await client.call("DeleteRun", pb.DeleteRunRequest(run_id=run_id))
    assert gone.deleted_runs == 3
    missing = await client.exchange("GetRun", pb.GetRunRequest(run_id=children[0].id))
    assert missing.reason == "NOT_FOUND"


async def test_a_tree_is_at_most_eight_deep(client: Recorder) -> None:
    run = await client.finished(await client.start("brancher", {"depth": 12, "width": 1}))
    assert run.output_json is not None
    assert "8 deep" in run.output_json
