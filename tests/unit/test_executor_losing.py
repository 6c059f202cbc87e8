"""Workers, leases and databases that go away under a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from onbelay_agent.protocol import (
    Begin,
    Begun,
    Parked,
    Reopened,
    Suspend,
)
from onbelay_server.domain.error import Unavailable
from onbelay_server.domain.event import LogWritten, StateChanged
from onbelay_server.domain.state import Decision, FailureReason, RunState
from onbelay_server.ports.harness import CopyLost
from tests.engine_house import EngineHouse, approval_intent, begin, engine_house, intent
from tests.patience import until

STOPPED, SUCCEEDED, FAILED = RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED


@pytest.fixture
async def house() -> AsyncIterator[EngineHouse]:
    async with engine_house() as house:
        yield house


async def test_another_owners_run_is_let_go_and_nothing_written(house: EngineHouse) -> None:
    run, copy = await house.begun()
    await house.stolen(run.id)
    before = await house.kinds(run.id)
    copy.say(begin(intent("s")))
    await until(lambda: copy.is_killed)
    assert await house.kinds(run.id) == before
    assert not any(isinstance(frame, Begun) for frame in copy.told)


async def test_a_lease_that_could_not_be_renewed_fences_its_owner(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(owner: str, *, until_us: int) -> list[object]:
        raise Unavailable("the database is away")

    monkeypatch.setattr(house.store, "renew", away)
    run, copy = await house.begun()
    house.clock.advance(31)
    await until(lambda: copy.is_killed)
    before = await house.kinds(run.id)
    copy.say(begin(intent("s")))
    await asyncio.sleep(0)
    assert await house.kinds(run.id) == before
    # The database is back: the run does not stay with a worker that has let it go.
    monkeypatch.undo()
    await house.as_time_passes(lambda: len(house.harness.launched) == 2)
    assert (await house.run(run.id)).epoch == 2


async def test_a_database_that_is_away_for_a_while_loses_nothing(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, copy = await house.begun()
    write, failures = house.store.write, iter(range(3))

    async def flaky(reads: object, decide: object) -> object:
        if next(failures, None) is not None:
            raise Unavailable("the database is away")
        return await write(reads, decide)  # type: ignore[arg-type]

    monkeypatch.setattr(house.store, "write", flaky)
    copy.say(begin(intent("s")))
    await house.as_time_passes(lambda: any(isinstance(frame, Begun) for frame in copy.told))
    assert (await house.kinds(run.id)).count("StepStarted") == 1


async def test_a_lost_copy_is_an_attempt_and_the_last_one_ends_the_run(house: EngineHouse) -> None:
    run, copy = await house.begun()
    for attempt in range(1, 6):
        copy = await house.copy(attempt)
        assert copy.start.attempt == attempt
        copy.say(CopyLost(reason="exited with code 9"))
        if attempt < 5:
            queued = await house.reached(run.id, RunState.QUEUED)
            assert (queued.ready_us > house.clock.now_us()) == (attempt > 1)
            house.clock.advance((queued.ready_us - house.clock.now_us()) / 1e6)
    after = await house.reached(run.id, FAILED)
    assert after.error is not None
    assert after.error.reason is FailureReason.CRASH_LOOP
    assert "exited with code 9" in after.error.message


async def test_a_step_that_kills_its_worker_each_time_is_a_crash_loop(house: EngineHouse) -> None:
    """Beginning a recorded step again is no progress: only a new one starts the count anew."""
    run, copy = await house.begun()
    copy.say(begin(intent("s")))
    await copy.heard(Begun)
    for attempt in range(1, 6):
        copy = await house.copy(attempt)
        if attempt > 1:
            copy.say(Begin(stage=0, reopened=(Reopened(step_id="s", attempt=attempt, once=False),)))
            await copy.heard(Begun)
        copy.say(CopyLost(reason="exited with code 9"))
        if attempt < 5:
            await house.reached(run.id, RunState.QUEUED)
            house.clock.advance(121)
    after = await house.reached(run.id, FAILED)
    assert after.error is not None
    assert after.error.reason is FailureReason.CRASH_LOOP


async def test_progress_starts_the_count_of_attempts_anew(house: EngineHouse) -> None:
    run, copy = await house.begun()
    for attempt in range(1, 8):
        copy = await house.copy(attempt)
        copy.say(begin(intent(f"s{attempt}")))
        await copy.heard(Begun)
        copy.say(CopyLost(reason="gone"))
        await house.reached(run.id, RunState.QUEUED)
        house.clock.advance(121)
    assert (await house.copy(8)).start.attempt == 2
    moves = [e.payload for e in await house.log(run.id) if isinstance(e.payload, StateChanged)]
    assert not any(move.to_state is FAILED for move in moves)


async def test_a_suspended_copy_that_must_be_killed_is_named_and_the_second_ends_its_run(
    house: EngineHouse,
) -> None:
    """Its new steps start the count of attempts anew, and each of its copies costs a thread."""
    run, copy = await house.begun()
    for number in (1, 2):
        copy = await house.copy(number)
        copy.unstoppable = (f"agent-loop-{number}",)
        copy.say(begin(approval_intent(f"a{number}")), Parked(stage=0, waiting=(f"a{number}",)))
        await copy.heard(Suspend)
        await house.reached(run.id, RunState.WAITING_FOR_APPROVAL)
        house.clock.advance(6)
        await until(lambda copy=copy: copy.is_killed)
        await house.decide(await house.pending(run.id), Decision.APPROVE)
    after = await house.reached(run.id, FAILED)
    assert after.error is not None
    assert after.error.reason is FailureReason.CRASH_LOOP
    assert "2 of its copies did not end" in after.error.message
    assert len(house.harness.launched) == 2
    notes = [e.payload for e in await house.log(run.id) if isinstance(e.payload, LogWritten)]
    assert [note.message.rpartition(": ")[2] for note in notes] == ["agent-loop-1", "agent-loop-2"]


async def test_a_suspended_copy_that_is_killed_and_leaves_nothing_behind_is_only_named(
    house: EngineHouse,
) -> None:
    run, copy = await house.begun()
    for number in (1, 2, 3):
        copy = await house.copy(number)
        copy.say(begin(approval_intent(f"a{number}")), Parked(stage=0, waiting=(f"a{number}",)))
        await copy.heard(Suspend)
        house.clock.advance(6)
        await until(lambda copy=copy: copy.is_killed)
        await house.decide(await house.pending(run.id), Decision.APPROVE)
    assert (await house.copy(4)).start.attempt == 1
    assert (await house.kinds(run.id)).count("LogWritten") == 3


async def test_a_suspended_copy_that_is_in_its_runs_way_is_counted_too(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.unstoppable = ("agent-loop-1",)
    copy.say(begin(approval_intent("a")), Parked(stage=0, waiting=("a",)))
    await copy.heard(Suspend)
    await house.decide(await house.pending(run.id), Decision.APPROVE)
    await house.copy(2)
    await until(lambda: copy.is_killed)
    async with asyncio.timeout(5):
        while "LogWritten" not in await house.kinds(run.id):  # noqa: ASYNC110
            await asyncio.sleep(0)
