"""Talking to runs over the wire: what may be said, by whom, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.struct_pb2 import Struct

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as pb
from onbelay.v1.event_pb2 import RunEvent
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.run import Wait
from onbelay_server.domain.state import RunState, StepKind
from tests.grpc.steering_server import SteeringDesk, steering_desk

Code = grpc.StatusCode


@pytest_asyncio.fixture
async def d() -> AsyncIterator[SteeringDesk]:
    async with steering_desk() as found:
        yield found


async def send(d: SteeringDesk, run_id: str = "run_1", **content: Any) -> pb.SendMessageResponse:
    reply: pb.SendMessageResponse = await d.call(
        d.runs.SendMessage, pb.SendMessageRequest(run_id=run_id, **content)
    )
    return reply


async def refused(
    d: SteeringDesk, run_id: str = "run_1", who: str = "ada", **content: Any
) -> tuple[grpc.StatusCode, str]:
    request = pb.SendMessageRequest(run_id=run_id, **content)
    found = await d.refused(d.runs.SendMessage, request, who)
    return found.code, found.reason


async def received(d: SteeringDesk, run_id: str = "run_1") -> list[Any]:
    """What the run was told, as its log has it."""
    stored = await d.house.store.events(run_id, after=0, limit=5000, max_bytes=2**22)
    events = [RunEvent.FromString(one.body) for one in stored]
    return [one.message_received for one in events if one.HasField("message_received")]


async def test_messages_are_kept_in_order(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING, listens=True)
    sent = [
        await send(d, text="one"),
        await send(d, data_json='{ "b": 1, "a": 9007199254740993 }'),
        await send(d, data=Struct()),
    ]
    said = await received(d)
    assert [one.message_id for one in said] == [one.message_id for one in sent]
    assert [(one.sent_by, one.text, one.data_json) for one in said] == [
        ("user:ada", "one", ""),
        ("user:ada", "", '{ "b": 1, "a": 9007199254740993 }'),
        ("user:ada", "", "{}"),
    ]


async def test_a_message_wakes_the_run_that_waits_for_one(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.WAITING_FOR_INPUT, listens=True)
    wait = Wait(run_id=run.id, step_id="main:messages:#1", kind=StepKind.MESSAGES, since_us=1)
    await d.house.store.write(
        Reads(runs=[run.id], open_of=[run.id]),
        lambda rows, now_us: Change(result=None, put=[wait]),
    )
    reply = await send(d, text="go")
    assert (reply.run.state, list(reply.run.waits)) == (run_pb2.RUN_STATE_QUEUED, [])
    assert await d.kinds("run_1") == ["message_received", "message_read", "state_changed"]


async def test_a_request_id_says_it_once(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING, listens=True)
    replies = await asyncio.gather(*(send(d, text="one", request_id="r1") for _ in range(20)))
    assert len({reply.message_id for reply in replies}) == 1
    assert len(await received(d)) == 1
    reused = (Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert await refused(d, text="two", request_id="r1") == reused


async def test_parallel_messages_are_all_kept(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING, listens=True)
    await asyncio.gather(*(send(d, text=str(number)) for number in range(50)))
    assert sorted(int(one.text) for one in await received(d)) == list(range(50))
    run = await d.house.store.run("run_1")
    assert run is not None
    assert run.message_count == 50


async def test_only_an_agent_that_listens_is_talked_to(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING)
    expected = (Code.FAILED_PRECONDITION, "MESSAGES_NOT_ACCEPTED")
    assert await refused(d, text="hello") == expected


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.STOPPING])
async def test_who_has_ended_hears_nothing(d: SteeringDesk, state: RunState) -> None:
    await d.put_run("run_1", state, listens=True)
    assert await refused(d, text="hello") == (Code.FAILED_PRECONDITION, "RUN_NOT_ACTIVE")


async def test_only_who_may_see_it_talks_to_a_run(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING, listens=True)
    for who in ("ben", "rival"):
        assert (await refused(d, who=who, text="hello"))[0] is Code.NOT_FOUND
    reply = await d.call(
        d.runs.SendMessage, pb.SendMessageRequest(run_id="run_1", text="hello"), "admin"
    )
    assert reply.message_id
    assert (await received(d))[0].sent_by == "user:root"


async def test_a_run_that_reads_nothing_is_told_no_more_in_the_end(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING, listens=True)
    for _ in range(10):
        await asyncio.gather(*(send(d, text="x") for _ in range(100)))
    found = await refused(d, text="x")
    assert found == (Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "INVALID_FIELD"),
        ({"text": ""}, "INVALID_FIELD"),
        ({"text": "x" * 65_537}, "INVALID_FIELD"),
        ({"text": "ä" * 40_000}, "INVALID_FIELD"),
        ({"data_json": ""}, "INVALID_JSON"),
        ({"data_json": "{"}, "INVALID_JSON"),
        ({"data_json": '{"a":1,"a":2}'}, "INVALID_JSON"),
        ({"data_json": "NaN"}, "INVALID_JSON"),
        ({"data_json": "[" * 65 + "]" * 65}, "INVALID_JSON"),
        ({"data_json": json.dumps("x" * 65_536)}, "INVALID_FIELD"),
    ],
)
async def test_hostile_messages(d: SteeringDesk, content: dict[str, str], reason: str) -> None:
    await d.put_run("run_1", RunState.RUNNING, listens=True)
    assert await refused(d, **content) == (Code.INVALID_ARGUMENT, reason)
    assert not await received(d)


async def test_a_structure_is_measured_as_json(d: SteeringDesk) -> None:
    await d.put_run("run_1", RunState.RUNNING, listens=True)
    data = Struct()
    data.update({"a": "x" * 65_536})
    assert await refused(d, data=data) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    data.update({"a": 1e300})
    assert await refused(d, data=data) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
