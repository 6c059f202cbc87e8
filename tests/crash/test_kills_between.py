"""Pause, message, resume, sleep and operation across a kill: each as without one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from onbelay.v1 import operation_pb2, run_pb2
from onbelay.v1 import operation_request_pb2 as operations_pb
from onbelay.v1 import run_request_pb2 as runs_pb
from tests.crash.arena import Arena, arena
from tests.crash.nursery import nursery
from tests.effect_service import effect_service
from tests.recorder import Recorder, Recording

AGENTS = ("asker.py:asker", "listener.py:listener", "sleeper.py:sleeper", "orderer.py:orderer")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Arena]:
    """A server that was just started; what it leaves is judged."""
    async with (
        nursery() as cradle,
        effect_service() as service,
        arena(cradle, tmp_path / "state", service, agents=AGENTS) as here,
    ):
        await here.start()
        here.client.patience_seconds = 15.0
        yield here
        await here.kill()
        assert await here.broken(await here.final()) == []


async def killed(place: Arena) -> None:
    """A kill, and the next server."""
    await place.kill()
    await place.start()


async def test_a_pause_outlives_its_server(place: Arena) -> None:
    client = place.client
    run_id = await client.start("asker")
    asked = await client.pending(run_id)
    await client.call("PauseRun", runs_pb.PauseRunRequest(run_id=run_id))
    await killed(place)
    assert (await client.get(run_id)).state == run_pb2.RUN_STATE_PAUSED
    # What it waits for still ends, and is kept.
    await client.decide(asked, "APPROVE")
    await killed(place)
    assert (await client.get(run_id)).state == run_pb2.RUN_STATE_PAUSED
    await client.call("ResumeRun", runs_pb.ResumeRunRequest(run_id=run_id))
    await killed(place)
    await client.decide(await client.pending(run_id), "ANSWER", answer_json='"rope"')
    run = await client.finished(run_id)
    assert json.loads(run.output_json) == "user:developer: rope"


async def test_messages_reach_the_agent_once_and_in_order(place: Arena) -> None:
    client = place.client
    run_id = await client.start("listener")
    words = [f"word {number}" for number in range(12)]
    for number, word in enumerate([*words, "end"]):
        said = runs_pb.SendMessageRequest(run_id=run_id, text=word, request_id=f"said-{number}")
        if number % 4 == 1:
            # Sent while the server is killed, and again until it is acknowledged.
            sending = asyncio.create_task(client.call("SendMessage", said))
            await asyncio.sleep(0)
            await killed(place)
            await sending
        else:
            await client.call("SendMessage", said)
    await client.follow(run_id, "reader")
    run = await client.get(run_id)
    assert json.loads(run.output_json) == [*words, "end"]


async def test_a_sleep_goes_on_by_the_clock(place: Arena) -> None:
    client = place.client
    begun = time.monotonic()
    run_id = await client.start("sleeper", {"seconds": 3.0})
    await client.reached(run_id, "BLOCKED")
    await killed(place)
    assert (await client.get(run_id)).state == run_pb2.RUN_STATE_BLOCKED
    await killed(place)
    await client.follow(run_id, "reader")
    run = await client.get(run_id)
    slept_us = run.finish_time.ToMicroseconds() - run.create_time.ToMicroseconds()
    assert json.loads(run.output_json) == "rested"
    assert 3.0 <= slept_us / 1e6 < time.monotonic() - begun + 1.0
    assert run.epoch == 2  # nobody drove it meanwhile


async def test_an_operation_keeps_its_token(place: Arena, tmp_path: Path) -> None:
    client = place.client
    ids = {}
    for name in ("first", "second"):
        ledger = tmp_path / name
        run_id = await client.start("orderer", {"ledger": str(ledger)})
        await client.reached(run_id, "BLOCKED")
        operation_id, token = ledger.read_text().split()
        ids[name] = (run_id, operation_id, token)
    await killed(place)
    run_id, operation_id, token = ids["first"]
    _, _, strange = ids["second"]
    done = operations_pb.CompleteOperationRequest(operation_id=operation_id, result_json="7")
    async with grpc.aio.insecure_channel(place.address) as channel:
        stranger = await Recorder(channel, strange, Recording()).exchange("CompleteOperation", done)
        assert stranger.code is StatusCode.PERMISSION_DENIED
        bearer = Recorder(channel, token, Recording())
        answers = await asyncio.gather(
            *(bearer.exchange("CompleteOperation", done) for _ in range(20))
        )
        assert {answer.code for answer in answers} == {StatusCode.OK}
        await killed(place)
        bearer.patience_seconds = 15.0
        again = await bearer.call("CompleteOperation", done)
        assert again.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
        done.result_json = "8"
        other = await bearer.exchange("CompleteOperation", done)
        assert (other.code, other.reason) == (
            StatusCode.FAILED_PRECONDITION,
            "OPERATION_CLOSED",
        )
    await client.follow(run_id, "reader")
    assert json.loads((await client.get(run_id)).output_json) == "got 7"
    completed = [e for e in await client.events(run_id) if e.HasField("operation_completed")]
    assert len(completed) == 1
    # The log holds no token.
    assert token not in str(await client.events(run_id))


async def test_an_operation_expires_while_no_server_is_there(place: Arena, tmp_path: Path) -> None:
    client = place.client
    ledger = tmp_path / "sent"
    run_id = await client.start("orderer", {"ledger": str(ledger), "expires": 1.5})
    await client.reached(run_id, "BLOCKED")
    await place.kill()
    await asyncio.sleep(1.5)
    await place.start()
    await client.follow(run_id, "reader")
    assert json.loads((await client.get(run_id)).output_json).startswith("failed: ")
    operation_id, _ = ledger.read_text().split()
    late = operations_pb.CompleteOperationRequest(operation_id=operation_id, result_json="7")
    refused = await client.exchange("CompleteOperation", late)
    assert refused.code is StatusCode.FAILED_PRECONDITION
