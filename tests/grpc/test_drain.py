"""A server that is told to end: health first, streams with their position, runs given back."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from onbelay.v1 import run_pb2
from onbelay.v1 import watch_request_pb2 as pb
from onbelay.v1.run_filter_pb2 import RunFilter
from onbelay.v1.run_request_pb2 import WaitRunRequest
from onbelay_server.app.watching.watches import Watches
from tests.checker import judge
from tests.grpc.spine_server import final_of, judged_server
from tests.recorder import Recording
from tests.server import child_server, serving


async def test_streams_end_with_reconnect_and_go_on_at_the_next_server(tmp_path: Path) -> None:
    recording = Recording()
    async with serving(tmp_path, recording) as server:
        run_id = await server.client.start("asker")
        approval = await server.client.pending(run_id)
        waiting = await server.client.reached(run_id, "WAITING_FOR_APPROVAL")
        request = pb.WatchRunRequest(run_id=run_id)
        watch = server.client.stream("WatchRun", request, "w")
        listing = server.client.stream("WatchRuns", pb.WatchRunsRequest(filter=RunFilter()))
        stream, lists = await watch.__aenter__(), await listing.__aenter__()
        await stream.until(lambda reply: reply.complete_through >= waiting.last_sequence)
        await lists.until(lambda reply: reply.caught_up)
        rests = [asyncio.create_task(one.rest()) for one in (stream, lists)]
    replies, list_replies = [await rest for rest in rests]
    await watch.__aexit__(None, None, None)
    await listing.__aexit__(None, None, None)
    for ended, last in ((stream, replies[-1]), (lists, list_replies[-1])):
        assert last.end.reason == pb.STREAM_END_REASON_RECONNECT
        assert (ended.exchange.code, ended.exchange.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
    held = replies[-1].complete_through
    assert held == waiting.last_sequence
    async with serving(tmp_path, recording) as server:
        request = pb.WatchRunRequest(run_id=run_id, after_sequence=held)
        async with server.client.stream("WatchRun", request, "w") as stream:
            await server.client.decide(approval, "REJECT")
            replies = await stream.rest()
        assert replies[-1].end.reason == pb.STREAM_END_REASON_FINISHED
    assert judge(recording, await final_of(server.database)) == []


async def test_a_running_run_is_given_back_and_is_no_attempt(tmp_path: Path) -> None:
    recording = Recording()
    async with serving(tmp_path, recording) as server:
        run_id = await server.client.start("sleeper", {"in_step": True})
        await server.client.reached(run_id, "RUNNING")
    final = await final_of(server.database)
    run = final.runs[run_id]
    assert (run.state, run.owner, run.attempt) == ("QUEUED", None, 0)
    assert judge(recording, final) == []


async def test_a_wait_is_answered_when_the_server_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, wait_really = asyncio.Event(), Watches.wait

    async def wait_noted(*given: Any, **named: Any) -> Any:
        arrived.set()
        return await wait_really(*given, **named)

    monkeypatch.setattr(Watches, "wait", wait_noted)
    async with judged_server(tmp_path) as server:
        run_id = await server.client.start("sleeper")
        await server.client.reached(run_id, "BLOCKED")
        wait = asyncio.create_task(server.client.exchange("WaitRun", WaitRunRequest(run_id=run_id)))
        await arrived.wait()
    answer = await wait
    assert answer.reply.timed_out
    assert answer.reply.run.state == run_pb2.RUN_STATE_BLOCKED


async def test_sigterm_drains_a_server(tmp_path: Path) -> None:
    recording = Recording()
    async with child_server(tmp_path, recording, agents=["sleeper"]) as server:
        run_id = await server.client.start("sleeper", {"in_step": True})
        await server.client.reached(run_id, "RUNNING")
        async with grpc.aio.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            reply = await health.Check(health_pb2.HealthCheckRequest())
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        process = server.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await process.wait() == 0
    final = await final_of(server.database)
    run = final.runs[run_id]
    assert (run.state, run.owner, run.attempt) == ("QUEUED", None, 0)
    assert judge(recording, final) == []
