"""A run whose copy waits for a place spends no limit, and what ends it ends it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from onbelay_agent.protocol import Begun, Stop
from onbelay_server.app.pauses import Pauses
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.state import RunState
from onbelay_server.ports.harness import CopyLost
from tests.engine_house import RETURNED, EngineHouse, begin, engine_house, intent
from tests.patience import PATIENCE_SECONDS
from tests.resources import ADA

LIMITS = Limits(
    first_response_seconds=5, idle_seconds=7, total_seconds=60, grace_seconds=10, kill_seconds=5
)


@pytest.fixture
async def house() -> AsyncIterator[EngineHouse]:
    """Without a place for any copy."""
    async with engine_house(limits=LIMITS) as house:
        house.harness.has_room = False
        yield house


async def pass_by(house: EngineHouse, seconds: int) -> None:
    """Let time pass; the lease is renewed meanwhile and the executor looks up."""
    for _ in range(seconds // 3):
        house.clock.advance(3)
        await house.looked("events")


async def test_waiting_for_a_place_is_no_time_of_the_run(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await pass_by(house, 90)
    assert (await house.run(run.id)).state is RunState.RUNNING
    copy.begin()
    await house.looked("events")
    await pass_by(house, 3)
    copy.say(begin(intent("s")))
    await copy.heard(Begun)
    copy.say(CopyLost(reason="killed by signal 9"))
    after = await house.reached(run.id, RunState.QUEUED)
    assert 2_000_000 <= after.active_us <= 4_000_000
    house.harness.has_room = True
    house.clock.advance(2)
    (await house.copy(2)).say(RETURNED)
    await house.reached(run.id, RunState.SUCCEEDED)


async def test_what_is_lost_while_it_waits_was_no_time_of_the_run(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await pass_by(house, 9)
    copy.say(CopyLost(reason="the service could not serve the child process"))
    after = await house.reached(run.id, RunState.QUEUED)
    assert (after.active_us, after.claim_us) == (0, None)


async def test_once_it_has_a_place_its_limits_hold(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await pass_by(house, 9)
    copy.begin()
    house.clock.advance(6)
    after = await house.reached(run.id, RunState.FAILED)
    assert after.error is not None
    assert after.error.message == "no first response within 5 s"


async def test_a_stop_ends_it_at_once(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await house.stops.stop(ADA, run.id, "enough")
    await house.reached(run.id, RunState.STOPPED)
    assert copy.is_killed


async def test_a_pause_takes_effect_at_once(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await Pauses(house.store).pause(ADA, run.id)
    await house.reached(run.id, RunState.PAUSED)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not copy.is_killed:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert not any(isinstance(frame, Stop) for frame in copy.told)


async def test_a_drain_gives_it_back_at_once(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await house.engine.drain()
    after = await house.run(run.id)
    assert (after.state, after.attempt, copy.is_killed) == (RunState.QUEUED, 0, True)
