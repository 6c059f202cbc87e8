"""A stop while a run is driven: what is told, what still counts, and when patience ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from onbelay_agent.protocol import (
    Begun,
    Ended,
    Finish,
    Stop,
)
from onbelay_server.domain.event import RunFinished
from onbelay_server.domain.state import RunState
from onbelay_server.ports.harness import CopyLost
from tests.engine_house import (
    RETURNED,
    EngineHouse,
    begin,
    engine_house,
    intent,
    tool_intent,
)
from tests.resources import ADA

STOPPED, SUCCEEDED, FAILED = RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED


@pytest.fixture
async def house() -> AsyncIterator[EngineHouse]:
    async with engine_house() as house:
        yield house


async def test_a_stop_is_told_and_its_end_recorded(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(begin(intent("s")))
    await copy.heard(Begun)
    stopping = await house.stops.stop(ADA, run.id, "enough")
    assert stopping.state is RunState.STOPPING
    told = await copy.heard(Stop)
    assert (told.grace_seconds, told.reason) == (10, "enough")
    # What ends within the grace is recorded; nothing new begins.
    copy.say(Finish(step_id="s", stage=0, ok_json="1"), begin(intent("late"), stage=1))
    copy.say(Ended(outcome="stopped", abandoned=("thread of s",)))
    after = await house.reached(run.id, STOPPED)
    assert after.stop is not None
    assert after.stop.unstoppable == ("thread of s",)
    log = await house.log(run.id)
    assert [event.step_id for event in log if event.step_id] == ["s", "s"]
    assert isinstance(log[-1].payload, RunFinished)
    assert log[-1].payload.not_stopped == ("thread of s",)


async def test_a_committed_stop_wins_and_the_result_is_kept(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await house.stops.stop(ADA, run.id, "")
    copy.say(RETURNED)
    after = await house.reached(run.id, STOPPED)
    assert (after.output_json, after.error) == ('"ok"', None)


async def test_a_copy_that_does_not_end_is_killed_when_its_time_is_up(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.unstoppable = ("agent-loop-1",)
    await house.stops.stop(ADA, run.id, "")
    await copy.heard(Stop)
    house.clock.advance(11)
    await house.looked("events")
    assert (await house.run(run.id)).state is RunState.STOPPING
    house.clock.advance(5)
    after = await house.reached(run.id, STOPPED)
    assert copy.is_killed
    assert after.stop is not None
    assert after.stop.unstoppable == ("agent-loop-1",)


async def test_the_end_of_a_stopping_copy_waits_for_its_tools_up_to_the_grace(
    house: EngineHouse,
) -> None:
    for finishes in (True, False):
        house.tools.gate.clear()
        run, copy = await house.begun()
        copy.say(begin(tool_intent("t", "look")))
        await copy.heard(Begun)
        await house.stops.stop(ADA, run.id, "")
        await copy.heard(Stop)
        copy.say(Ended(outcome="stopped"))
        await house.looked("events")
        assert (await house.run(run.id)).state is RunState.STOPPING
        if finishes:
            house.tools.gate.set()
        else:
            house.clock.advance(11)
        await house.reached(run.id, STOPPED)
        assert ("ToolCallFinished" in await house.kinds(run.id)) is finishes


async def test_a_lost_copy_of_a_stopping_run_leaves_it_stopped(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await house.stops.stop(ADA, run.id, "")
    copy.say(CopyLost(reason="killed by signal 9"))
    after = await house.reached(run.id, STOPPED)
    assert (after.error, after.attempt) == (None, 1)


async def test_a_stop_that_races_the_end_leaves_one_terminal_event(house: EngineHouse) -> None:
    chance = random.Random(3)
    seen = set()
    for _ in range(1000):
        run, copy = await house.begun()
        ways = [lambda copy=copy: copy.say(RETURNED), None]
        chance.shuffle(ways)
        stopping: asyncio.Task[object] | None = None
        for way in ways:
            if way is None:
                stopping = asyncio.create_task(house.stops.stop(ADA, run.id, ""))
            else:
                way()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        assert stopping is not None
        await stopping
        after = await house.reached(run.id, STOPPED, SUCCEEDED)
        seen.add(after.state)
        log = await house.log(run.id)
        ends = [event.payload for event in log if isinstance(event.payload, RunFinished)]
        assert (len(ends), log[-1].payload) == (1, ends[0])
        assert ends[0].state is after.state
    assert seen == {STOPPED, SUCCEEDED}
