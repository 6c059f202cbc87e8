"""Agents in the server's process that will not end: the server does, and says how."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from onbelay.v1 import run_pb2
from onbelay.v1.run_request_pb2 import StopRunRequest
from tests.grpc.spine_server import final_of
from tests.server import Server, child_server

OPTIONS = ("--drain-seconds", "1")
ENOUGH = 4
"""Threads left behind, after which a process is to be replaced."""


async def exit_code(server: Server) -> int:
    assert server.process is not None
    async with asyncio.timeout(15):
        return await server.process.wait()


@pytest.mark.parametrize("way", ["step", "task of a step", "thread", "group"])
async def test_a_server_ends_when_it_is_told_to_whatever_its_agents_do(
    tmp_path: Path, way: str
) -> None:
    async with child_server(tmp_path, agents=["unending"], options=OPTIONS) as server:
        run_id = await server.client.start("unending", {"way": way})
        await server.client.reached(run_id, "BLOCKED" if way == "group" else "RUNNING")
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert await exit_code(server) == 0
    run = (await final_of(server.database)).runs[run_id]
    assert (run.state, run.owner) == ("BLOCKED" if way == "group" else "QUEUED", None)


@pytest.mark.parametrize("way", ["step", "group"])
async def test_what_swallows_its_end_is_stopped_and_leaves_nothing_behind(
    tmp_path: Path, way: str
) -> None:
    async with child_server(tmp_path, agents=["unending"], options=OPTIONS) as server:
        for _ in range(ENOUGH):
            run_id = await server.client.start("unending", {"way": way})
            await server.client.reached(run_id, "BLOCKED" if way == "group" else "RUNNING")
            await server.client.exchange("StopRun", StopRunRequest(run_id=run_id))
            await server.client.reached(run_id, "STOPPED")
            events = await server.client.events(run_id)
            assert list(events[-1].run_finished.not_stopped) == []
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert await exit_code(server) == 0


@pytest.mark.parametrize("way", ["thread", "task of a step"])
async def test_a_server_with_too_much_left_behind_ends_as_failed(tmp_path: Path, way: str) -> None:
    async with child_server(tmp_path, agents=["unending"], options=OPTIONS) as server:
        runs = [await server.client.start("unending", {"way": way}) for _ in range(ENOUGH)]
        for run_id in runs:
            await server.client.reached(run_id, "RUNNING")
        for run_id in runs:
            stop = await server.client.exchange("StopRun", StopRunRequest(run_id=run_id))
            assert stop.reply.run.state == run_pb2.RUN_STATE_STOPPING
        assert await exit_code(server) == 1
    final = await final_of(server.database)
    assert {final.runs[run_id].state for run_id in runs} == {"STOPPED"}
