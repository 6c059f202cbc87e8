"""Stopping one run or many, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpc import StatusCode

from onbelay.v1 import run_request_pb2 as pb
from onbelay.v1.approval_pb2 import APPROVAL_DECISION_APPROVE
from onbelay.v1.approval_request_pb2 import DecideApprovalRequest
from onbelay.v1.run_filter_pb2 import RunFilter
from tests.grpc.spine_server import judged_server, state, waiting
from tests.recorder import Recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    async with judged_server(tmp_path_factory.mktemp("stops")) as server:
        yield server.client


async def test_a_queued_run_stops_at_once(client: Recorder) -> None:
    run = await client.stop(await waiting(client), "changed my mind")
    assert (state(run), run.stop.reason, run.epoch) == ("STOPPED", "changed my mind", 0)
    assert run.stop.requested_by == run.started_by


async def test_a_waiting_run_stops_at_once_and_its_approval_with_it(client: Recorder) -> None:
    run_id = await client.start("asker")
    approval = await client.pending(run_id)
    assert state(await client.stop(run_id)) == "STOPPED"
    run = await client.get(run_id)
    assert (state(run), list(run.waits)) == ("STOPPED", [])
    kinds = [event.WhichOneof("payload") for event in await client.events(run_id)]
    assert kinds[-3:] == ["approval_voided", "state_changed", "run_finished"]
    late = DecideApprovalRequest(
        approval_id=approval.id,
        decision=APPROVAL_DECISION_APPROVE,
        body_sha256=approval.body_sha256,
    )
    refused = await client.exchange("DecideApproval", late)
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "RUN_NOT_ACTIVE")


@pytest.mark.parametrize("agent", ["sleeper", "crasher"])
async def test_a_running_run_stops_within_its_bound(
    client: Recorder, agent: str, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"in_step": True}
    if agent == "crasher":
        values = {"ledger": str(tmp_path / "ledger"), "times": 0}
    run_id = await client.start(agent, values)
    await client.reached(run_id, "RUNNING", "SUCCEEDED")
    first = await client.stop(run_id)
    assert state(first) in ("STOPPING", "STOPPED", "SUCCEEDED")
    again = await client.stop(run_id, "a second reason")
    assert again.stop.reason == first.stop.reason
    run = await client.finished(run_id)
    assert state(run) in ("STOPPED", "SUCCEEDED")
    assert (await client.stop(run_id)).finish_time == run.finish_time


async def test_an_agent_that_swallows_its_end_is_stopped_all_the_same(client: Recorder) -> None:
    run_id = await client.start("stubborn")
    await client.reached(run_id, "BLOCKED")
    await client.stop(run_id)
    assert state(await client.finished(run_id)) == "STOPPED"


async def test_stop_runs_needs_a_filter_and_says_what_it_stopped(client: Recorder) -> None:
    wanted = [await waiting(client, labels={"of": "mine"}) for _ in range(3)]
    other = await waiting(client)
    request = pb.StopRunsRequest(filter=RunFilter(labels={"of": "mine"}))
    reply = await client.call("StopRuns", request)
    assert (sorted(reply.stopped_run_ids), reply.more) == (sorted(wanted), False)
    assert state(await client.get(other)) == "QUEUED"
    assert not (await client.call("StopRuns", request)).stopped_run_ids


async def test_a_repeated_stop_of_many_is_about_the_same_runs(client: Recorder) -> None:
    labels = {"of": "repeated"}
    wanted = [await waiting(client, labels=labels) for _ in range(3)]
    request = pb.StopRunsRequest(filter=RunFilter(labels=labels), request_id="clear-1")
    first = await client.call("StopRuns", request)
    later = await waiting(client, labels=labels)
    assert await client.call("StopRuns", request) == first
    assert sorted(first.stopped_run_ids) == sorted(wanted)
    assert state(await client.get(later)) == "QUEUED"


async def test_one_request_id_stops_for_one_filter_alone(client: Recorder) -> None:
    names = ["left", "right"]
    runs = {name: await waiting(client, labels={"side": name}) for name in names}
    requests = [
        pb.StopRunsRequest(filter=RunFilter(labels={"side": name}), request_id="clear-2")
        for name in names
    ]
    said = await asyncio.gather(*(client.exchange("StopRuns", one) for one in requests))
    assert sorted(one.reason for one in said) == ["", "REQUEST_ID_REUSED"]
    for name, one in zip(names, said, strict=True):
        expected = "QUEUED" if one.reason else "STOPPED"
        assert state(await client.get(runs[name])) == expected
