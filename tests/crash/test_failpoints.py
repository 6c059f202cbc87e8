"""A run whose server is killed at each named failpoint ends as one that nobody killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay.v1 import watch_request_pb2 as watch_pb
from onbelay_server.ports import failpoints
from tests.agents.mixed import expected
from tests.crash.arena import Arena, arena
from tests.crash.nursery import Nursery, nursery
from tests.crash.person import Person
from tests.crash.story import starts, story
from tests.effect_service import EffectService, effect_service

STORY = [
    "step", "once", "emit", "charge", "operation", "peek", "put", "approve", "sleep", "message",
    "file", "child", "gather", "version", "ask", "handle", "nap",
]  # fmt: skip
SEED = 7

KILLS = {
    "inside_batch": ["inside_batch=crash:25"],
    "before_commit": ["before_commit=crash:10", "before_commit=crash:7"],
    "after_commit_before_wake": ["after_commit_before_wake=crash:9"],
    "after_claim_before_launch": ["after_claim_before_launch=crash:1"],
    "after_lease_renewed": ["after_lease_renewed=crash:1"],
    "after_intent_before_sent": ["after_intent_before_sent=crash:1"],
    "after_tool_sent_before_recorded": ["after_tool_sent_before_recorded=crash:1"],
    "after_step_finished_before_recorded": ["after_step_finished_before_recorded=crash:2"],
    "after_park_before_suspend": ["after_park_before_suspend=crash:2"],
    "after_end_before_recorded": ["after_end_before_recorded=crash:1"],
    "after_due_before_recorded": ["after_due_before_recorded=crash:1"],
    "after_orphan_found": ["after_tool_sent_before_recorded=crash:2", "after_orphan_found=crash:1"],
}
"""What each server of a run's life is armed with; the last one with nothing."""


class NeverReached(AssertionError):
    """The run had ended before its server came to the failpoint."""


async def _died(place: Arena, starting: asyncio.Task[str]) -> bool:
    """Whether the failpoint killed the server before the run had ended."""
    while not await place.died(0.3):
        if starting.done():
            run = await place.client.exchange(
                "GetRun", runs_pb.GetRunRequest(run_id=starting.result())
            )
            if run.code is StatusCode.OK and run.reply.run.HasField("finish_time"):
                # What follows the end may still reach it.
                return await place.died(1.5)
    return True


async def lived(place: Arena, kills: list[str], agent: str = "mixed") -> tuple[run_pb2.Run, Any]:
    """A run of the story that begins under the first of these servers; its last row and its log.
    Every one of the servers must have been killed by its failpoint."""
    place.recording.exchanges.clear()
    await place.start(kills[0] if kills else "")
    client = place.client
    client.patience_seconds = 15.0
    person = asyncio.create_task(Person(client, place.service).live())
    try:
        values = {"seed": SEED, "service": place.service.address, "only": STORY}
        starting = asyncio.create_task(client.start(agent, values, request_id="story"))
        for number, armed in enumerate(kills, 1):
            if not await _died(place, starting):
                raise NeverReached(armed)
            await place.kill()
            await place.start(kills[number] if number < len(kills) else "")
        run_id = await starting
        await asyncio.wait_for(client.follow(run_id, "reader"), 30.0)
        run, log = await client.get(run_id), await client.events(run_id)
    finally:
        person.cancel()
        await asyncio.gather(person, return_exceptions=True)
        await place.kill()
    broken = await place.broken(await place.final())
    assert broken == []
    return run, log


@asynccontextmanager
async def houses() -> AsyncIterator[tuple[Nursery, EffectService]]:
    """What the servers of one test share."""
    async with nursery() as cradle, effect_service() as service:
        yield cradle, service


@pytest.mark.timeout(120)
async def test_a_run_killed_at_any_failpoint_ends_as_one_never_killed(tmp_path: Path) -> None:
    gate = asyncio.Semaphore(7)
    async with houses() as (cradle, service):

        async def life(name: str, kills: list[str]) -> tuple[run_pb2.Run, Any]:
            async with gate, arena(cradle, tmp_path / name, service) as place:
                return await lived(place, kills)

        async with asyncio.TaskGroup() as lives:
            never = lives.create_task(life("never", []))
            tasks = {name: lives.create_task(life(name, kills)) for name, kills in KILLS.items()}
    run, log = never.result()
    wanted = story(log)
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert json.loads(run.output_json) == expected(SEED, 0, tuple(STORY))
    for name, task in tasks.items():
        other, its_log = task.result()
        assert (other.state, other.output_json) == (run.state, run.output_json), name
        assert starts(its_log) == starts(log), name
        assert story(its_log) == wanted, name


async def test_a_stop_holds_though_its_server_dies_before_the_agent_hears_of_it(
    tmp_path: Path,
) -> None:
    async with (
        houses() as (cradle, service),
        arena(cradle, tmp_path, service, agents=["sleeper.py:sleeper"]) as place,
    ):
        await place.start("after_stop_before_told=crash:1")
        client = place.client
        client.patience_seconds = 15.0
        run_id = await client.start("sleeper", {"in_step": True})
        await client.reached(run_id, "RUNNING")
        async with client.stream("WatchRun", watch_pb.WatchRunRequest(run_id=run_id)) as stream:
            await stream.until(
                lambda reply: any(event.HasField("step_started") for event in reply.events)
            )
        stopping = asyncio.create_task(client.stop(run_id))
        assert await place.died(10.0)
        await place.kill()
        await place.start()
        await stopping
        await client.follow(run_id, "reader")
        run = await client.get(run_id)
        assert run.state == run_pb2.RUN_STATE_STOPPED
        # It was wound down, not run again.
        assert [
            e.step_id for e in await client.events(run_id) if e.HasField("step_restarted")
        ] == []
        await place.kill()
        assert await place.broken(await place.final()) == []


def test_every_failpoint_is_somewhere_in_the_code() -> None:
    source = Path(failpoints.__file__).parents[1]
    code = "".join(path.read_text() for path in source.rglob("*.py") if path.stem != "failpoints")
    for name in failpoints.NAMES:
        calls = code.count(f'reach("{name}")') + code.count(f'pass_by("{name}")')
        assert calls, name
    assert set(KILLS) | {"after_stop_before_told"} == set(failpoints.NAMES)
