"""Starting, reading, labelling, stopping and deleting runs, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode

from onbelay.v1 import agent_pb2, run_pb2
from onbelay.v1 import agent_service_pb2 as agents
from onbelay.v1 import run_request_pb2 as pb
from onbelay.v1.run_filter_pb2 import RunFilter
from tests.grpc.spine_server import FAR, judged_server, state, waiting
from tests.recorder import Recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    async with judged_server(tmp_path_factory.mktemp("runs")) as server:
        yield server.client


# ---- starting ------------------------------------------------------------------------------------


async def test_a_run_is_started_and_finishes(client: Recorder) -> None:
    run_id = await client.start("hello", {"name": "Ada"}, labels={"team": "blue"}, title="First")
    run = await client.finished(run_id)
    assert (state(run), run.output_json) == ("SUCCEEDED", '"Hello Ada"')
    assert (dict(run.labels), run.title, run.epoch) == ({"team": "blue"}, "First", 1)
    kinds = [event.WhichOneof("payload") for event in await client.events(run_id)]
    assert kinds == ["run_started", "state_changed", "state_changed", "run_finished"]


async def test_a_hundred_parallel_calls_with_one_request_id_start_one_run(client: Recorder) -> None:
    request = pb.StartRunRequest(
        request_id="once", agent="counter", input_json='{"steps":2}', labels={"of": "hundred"}
    )
    exchanges = await asyncio.gather(*(client.exchange("StartRun", request) for _ in range(100)))
    assert {one.code for one in exchanges} == {StatusCode.OK}
    assert len({one.reply.run.id for one in exchanges}) == 1
    assert sum(not one.reply.already_started for one in exchanges) == 1
    which = RunFilter(labels={"of": "hundred"})
    assert len((await client.call("ListRuns", pb.ListRunsRequest(filter=which))).runs) == 1
    await client.finished(exchanges[0].reply.run.id)


async def test_a_request_id_is_good_for_one_body(client: Recorder) -> None:
    await client.start("hello", request_id="mine")
    other = pb.StartRunRequest(request_id="mine", agent="hello", input_json='{"name":"Ben"}')
    refused = await client.exchange("StartRun", other)
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_a_rerun_copies_what_is_not_given(client: Recorder) -> None:
    first = await client.start("hello", {"name": "Ada"}, labels={"team": "blue"}, title="First")
    request = pb.StartRunRequest(request_id="again", rerun_of=first, title="Second")
    again = (await client.call("StartRun", request)).run
    assert (again.rerun_of, dict(again.labels), again.title) == (first, {"team": "blue"}, "Second")
    assert (await client.finished(again.id)).output_json == '"Hello Ada"'
    request = pb.StartRunRequest(request_id="new", rerun_of=first, input_json='{"name":"Ben"}')
    changed = (await client.call("StartRun", request)).run
    assert (await client.finished(changed.id)).output_json == '"Hello Ben"'


async def test_a_run_is_not_claimed_before_its_time(client: Recorder) -> None:
    run_id = await waiting(client)
    reply = await client.call(
        "WaitRun", pb.WaitRunRequest(run_id=run_id, timeout=Duration(nanos=50_000_000))
    )
    assert reply.timed_out
    assert (state(reply.run), reply.run.ready_time) == ("QUEUED", FAR)


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"agent": "nobody"}, StatusCode.NOT_FOUND, "NOT_FOUND"),
        ({"agent": "hello", "agent_revision": 9}, StatusCode.NOT_FOUND, "NOT_FOUND"),
        ({"rerun_of": "run_nothing"}, StatusCode.NOT_FOUND, "NOT_FOUND"),
        (
            {"agent": "hello", "input_json": '{"name":7}'},
            StatusCode.INVALID_ARGUMENT,
            "INPUT_MISMATCH",
        ),
        ({"agent": "hello", "session_id": "s"}, StatusCode.UNIMPLEMENTED, "RPC_NOT_BUILT"),
        (
            {"agent": "hello", "input_artifacts": {"a": "art_x"}},
            StatusCode.NOT_FOUND,
            "NOT_FOUND",
        ),
    ],
)
async def test_what_cannot_be_started(
    client: Recorder, fields: dict[str, Any], code: StatusCode, reason: str
) -> None:
    request = pb.StartRunRequest(request_id="no", labels={"of": "none"}, **fields)
    refused = await client.exchange("StartRun", request)
    assert (refused.code, refused.reason) == (code, reason)
    which = RunFilter(labels={"of": "none"})
    assert not (await client.call("ListRuns", pb.ListRunsRequest(filter=which))).runs


# ---- lists ---------------------------------------------------------------------------------------


async def test_an_agent_that_asks_for_what_is_not_done_is_not_started(client: Recorder) -> None:
    policy = agent_pb2.ApprovalPolicy(four_eyes=True, expire_after=Duration(seconds=60))
    careful = agent_pb2.Agent(name="careful", blueprint="hello", approval_policy=policy)
    await client.call("CreateAgent", agents.CreateAgentRequest(agent=careful))
    request = pb.StartRunRequest(request_id="careful", agent="careful")
    refused = await client.exchange("StartRun", request)
    assert (refused.code, refused.reason) == (
        StatusCode.FAILED_PRECONDITION,
        "AGENT_NOT_STARTABLE",
    )
    problem = "this version does nothing for approval_policy.four_eyes yet"
    assert refused.metadata == {"problem": problem}
    careful.approval_policy.four_eyes = False
    mask = FieldMask(paths=["approval_policy"])
    await client.call("UpdateAgent", agents.UpdateAgentRequest(agent=careful, update_mask=mask))
    started = await client.call("StartRun", request)
    assert (await client.finished(started.run.id)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_lists_hold_every_run_once_over_many_pages(client: Recorder) -> None:
    few = asyncio.Semaphore(64)

    async def start(number: int) -> str:
        async with few:
            return await waiting(client, labels={"third": str(number % 3), "all": "yes"})

    started = await asyncio.gather(*(start(number) for number in range(1_010)))

    async def listed(size: int, **which: Any) -> list[Any]:
        request = pb.ListRunsRequest(filter=RunFilter(**which), page_size=size)
        runs: list[Any] = []
        while True:
            page = await client.call("ListRuns", request)
            assert len(page.runs) <= size
            runs += page.runs
            if not page.next_page_token:
                return runs
            request.page_token = page.next_page_token

    everything = await listed(1000, labels={"all": "yes"})
    assert sorted(run.id for run in everything) == sorted(started)
    times = [run.create_time.ToMicroseconds() for run in everything]
    assert times == sorted(times, reverse=True)
    assert not any(run.HasField("input_json") for run in everything)
    third = await listed(100, labels={"third": "1", "all": "yes"})
    assert sorted(run.id for run in third) == sorted(started[1::3])
    mine = {"all": "yes"}
    assert await listed(10, labels=mine, states=["RUN_STATE_RUNNING"]) == []
    assert await listed(10, labels=mine, agents=["counter"]) == []
    queued = await listed(500, labels=mine, states=["RUN_STATE_QUEUED"], agents=["hello"])
    assert len(queued) == 1_010
    # What StopRuns can do at once is bounded: it says when there is more.
    request = pb.StopRunsRequest(filter=RunFilter(labels={"all": "yes"}), reason="clear")
    counts, more = [], True
    while more:
        reply = await client.call("StopRuns", request)
        counts.append(len(reply.stopped_run_ids))
        more = reply.more
    assert counts == [500, 500, 10]
    assert len(await listed(1000, labels=mine, states=["RUN_STATE_STOPPED"])) == 1_010


async def test_page_tokens_belong_to_their_query(client: Recorder) -> None:
    for _ in range(3):
        await waiting(client)
    page = await client.call("ListRuns", pb.ListRunsRequest(page_size=1))
    other = pb.ListRunsRequest(
        page_token=page.next_page_token, filter=RunFilter(states=[run_pb2.RUN_STATE_FAILED])
    )
    refused = await client.exchange("ListRuns", other)
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


# ---- labels, deletion ----------------------------------------------------------------------------


async def test_only_what_the_mask_names_is_changed(client: Recorder) -> None:
    run_id = await waiting(client, labels={"a": "1"}, title="Old")
    request = pb.UpdateRunRequest(run_id=run_id, title="New", labels={"b": "2"})
    request.update_mask.paths.append("title")
    run = (await client.call("UpdateRun", request)).run
    assert (run.title, dict(run.labels)) == ("New", {"a": "1"})
    request.update_mask.paths[:] = ["labels"]
    assert dict((await client.call("UpdateRun", request)).run.labels) == {"b": "2"}
    assert (await client.get(run_id)).title == "New"


async def test_a_repeated_update_does_not_undo_a_later_one(client: Recorder) -> None:
    run_id = await waiting(client)
    first = pb.UpdateRunRequest(run_id=run_id, title="First", request_id="one")
    first.update_mask.paths.append("title")
    await client.call("UpdateRun", first)
    second = pb.UpdateRunRequest(run_id=run_id, title="Second", request_id="two")
    second.update_mask.paths.append("title")
    await client.call("UpdateRun", second)
    assert (await client.call("UpdateRun", first)).run.title == "Second"


async def test_a_run_is_deleted_once_it_has_ended(client: Recorder) -> None:
    run_id = await waiting(client)
    request = pb.DeleteRunRequest(run_id=run_id, request_id="gone")
    refused = await client.exchange("DeleteRun", request)
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "RUN_NOT_FINISHED")
    assert refused.metadata == {"run_id": run_id, "state": "QUEUED"}
    await client.stop(run_id)
    assert (await client.call("DeleteRun", request)).deleted_runs == 1
    assert (await client.call("DeleteRun", request)).deleted_runs == 1
    gone = await client.exchange("GetRun", pb.GetRunRequest(run_id=run_id))
    assert (gone.code, gone.reason) == (StatusCode.NOT_FOUND, "NOT_FOUND")


# ---- waiting -------------------------------------------------------------------------------------


async def test_wait_for_attention_is_for_what_is_new(client: Recorder) -> None:
    run_id = await client.start("asker")
    attention = pb.WaitRunRequest(run_id=run_id, until=pb.WAIT_UNTIL_ATTENTION)
    first = await client.call("WaitRun", attention)
    assert (first.timed_out, len(first.run.waits)) == (False, 1)
    attention.after_sequence = first.run.last_sequence
    attention.timeout.nanos = 50_000_000
    assert (await client.call("WaitRun", attention)).timed_out
    attention.timeout.seconds = 10
    second = asyncio.create_task(client.call("WaitRun", attention))
    await client.decide(await client.pending(run_id), "APPROVE")
    reply = await second
    assert (reply.timed_out, len(reply.run.waits)) == (False, 1)
    assert reply.run.waits[0].approval_id != first.run.waits[0].approval_id
    await client.decide(await client.pending(run_id), "ANSWER", answer_json='"blue"')
    run = await client.finished(run_id)
    assert (state(run), run.output_json) == ("SUCCEEDED", '"user:developer: blue"')


async def test_a_rejection_is_told_to_the_agent(client: Recorder) -> None:
    run_id = await client.start("asker")
    await client.decide(await client.pending(run_id), "REJECT", comment="not today")
    run = await client.finished(run_id)
    assert state(run) == "SUCCEEDED"
    assert "not today" in run.output_json
