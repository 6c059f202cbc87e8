"""Claiming: each run once, none before its time, none for ever without a driver."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from onbelay_server.app.engine.dispatcher import Dispatcher
from onbelay_server.app.engine.rescuer import Rescuer
from onbelay_server.domain.agent import HarnessKind
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.error import Unavailable
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.ports.store import Committed
from tests.engine_house import AGENT_ID, RETURNED, EngineHouse, approval_intent, begin, engine_house
from tests.patience import turns, until
from tests.played import PlayedCopy, PlayedHarness
from tests.resources import ADA


async def test_two_dispatchers_on_one_store_claim_each_of_a_thousand_runs_once() -> None:
    house = EngineHouse()
    await house.prepare()
    runs = [await house.start() for _ in range(1000)]
    finish = PlayedHarness()
    finish.on_launch = lambda copy: copy.say(RETURNED)
    tasks, dispatchers = [], []
    for owner in ("worker_1", "worker_2"):
        parts = replace(house.parts, owner=owner, harnesses={HarnessKind.PYTHON: finish})
        dispatchers.append(Dispatcher(parts))
        tasks.append(asyncio.create_task(dispatchers[-1].run()))
    async with asyncio.timeout(20):
        while len(finish.launched) < 1000:  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0)
    for run in runs:
        after = await house.reached(run.id, RunState.SUCCEEDED)
        assert after.epoch == 1
    assert len(finish.launched) == 1000
    assert len({copy.start.run_id for copy in finish.launched}) == 1000
    for task in tasks:
        task.cancel()
    for dispatcher in dispatchers:
        await dispatcher.close()


async def test_no_more_runs_than_there_are_slots() -> None:
    house = EngineHouse()
    await house.prepare()
    dispatcher = Dispatcher(replace(house.parts, pace=replace(house.pace, slots=3)))
    runs = [await house.start() for _ in range(5)]
    task = asyncio.create_task(dispatcher.run())
    await house.copy(3)
    dispatcher.wake()
    await turns()
    assert len(house.harness.launched) == 3
    house.harness.launched[0].say(RETURNED)
    await house.copy(4)
    assert {copy.start.run_id for copy in house.harness.launched} == {r.id for r in runs[:4]}
    task.cancel()
    await dispatcher.close()


async def test_a_run_waits_for_its_time() -> None:
    async with engine_house() as house:
        run = await house.start(ready_us=house.clock.now_us() + 5_000_000)
        await house.looked("claimable")
        assert not house.harness.launched
        house.clock.advance(5)
        assert (await house.copy(1)).start.run_id == run.id


async def test_one_tenants_flood_is_not_in_front_of_anothers_first_run() -> None:
    house = EngineHouse()
    await house.prepare()
    for _ in range(20):
        await house.start()
    other = await house.start(tenant="rival", starter="user:rob")
    dispatcher = Dispatcher(replace(house.parts, pace=replace(house.pace, slots=2)))
    task = asyncio.create_task(dispatcher.run())
    await house.copy(2)
    assert other.id in {copy.start.run_id for copy in house.harness.launched}
    task.cancel()
    await dispatcher.close()


async def test_a_run_whose_agent_is_gone_fails() -> None:
    async with engine_house() as house:
        run = await house.start(agent_revision=9)
        after = await house.reached(run.id, RunState.FAILED)
        assert after.error is not None
        assert after.error.reason is FailureReason.AGENT_NOT_FOUND


async def test_an_executor_that_breaks_loses_an_attempt_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with engine_house() as house:
        launch = house.harness.launch

        async def broken(_launch: object) -> PlayedCopy:
            raise RuntimeError("no")

        monkeypatch.setattr(house.harness, "launch", broken)
        run = await house.start()
        queued = await house.reached(run.id, RunState.QUEUED)
        async with asyncio.timeout(5):
            while not queued.attempt:
                queued = await house.reached(run.id, RunState.QUEUED)
                await asyncio.sleep(0)
        monkeypatch.setattr(house.harness, "launch", launch)
        house.clock.advance(1)
        (await house.copy(1)).say(RETURNED)
        await house.reached(run.id, RunState.SUCCEEDED)


async def test_a_claim_whose_answer_was_lost_does_not_keep_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with engine_house() as house:
        write = house.store.write

        async def forgetful(reads: Reads, decide: object) -> object:
            committed: Committed[object] = await write(reads, decide)  # type: ignore[arg-type]
            if any(after.run.state is RunState.RUNNING for after in committed.runs.values()):
                monkeypatch.undo()
                raise Unavailable("the connection broke after the commit")
            return committed

        monkeypatch.setattr(house.store, "write", forgetful)
        run = await house.start()
        assert (await house.reached(run.id, RunState.RUNNING)).owner is not None
        assert not house.harness.launched
        await house.as_time_passes(lambda: house.harness.launched)
        house.harness.launched[0].say(RETURNED)
        assert (await house.reached(run.id, RunState.SUCCEEDED)).epoch == 2


# ---- orphans -------------------------------------------------------------------------------------


def orphan(number: int, now_us: int, **more: object) -> Run:
    values = {
        "id": f"orphan_{number:04}",
        "tenant": ADA.tenant,
        "starter": ADA.id,
        "root_id": f"orphan_{number:04}",
        "agent_id": AGENT_ID,
        "agent_name": "played",
        "agent_revision": 1,
        "agent_owner": "user:olga",
        "input_json": "{}",
        "state": RunState.RUNNING,
        "owner": "worker_dead",
        "epoch": 1,
        "attempt": 1,
        "ready_us": now_us,
        "create_us": now_us,
        "update_us": now_us,
    }
    return Run(**(values | more))  # type: ignore[arg-type]


async def test_the_runs_of_a_dead_process_are_taken_over() -> None:
    house = EngineHouse()
    await house.prepare()
    now_us = house.clock.now_us()
    orphans = [orphan(number, now_us) for number in range(1, 301)]
    await house.store.write(Reads(), lambda rows, at: Change(result=None, put=orphans))
    mine = await house.start()
    house.engine.start()
    house.harness.on_launch = lambda copy: copy.say(RETURNED)
    # Others are served while the orphans are looked after.
    await house.reached(mine.id, RunState.SUCCEEDED)
    await house.as_time_passes(lambda: len(house.harness.launched) == 301)
    for run in orphans:
        after = await house.reached(run.id, RunState.SUCCEEDED)
        assert after.epoch == 2
    await house.engine.close()


async def test_an_orphan_that_was_stopping_is_stopped_and_never_run_again() -> None:
    house = EngineHouse()
    await house.prepare()
    house.engine.start()
    run, copy = await house.begun()
    copy.say(begin(approval_intent("a")))
    await house.pending(run.id)
    await house.stolen(run.id)
    await until(lambda: copy.is_killed)
    assert (await house.stops.stop(ADA, run.id, "")).state is RunState.STOPPING
    rescuer = Rescuer(house.parts, Dispatcher(house.parts))
    rescue = asyncio.create_task(rescuer.rescue())
    while not rescue.done():
        house.clock.advance(0.1)
        await asyncio.sleep(0)
    after = await house.reached(run.id, RunState.STOPPED)
    assert (after.epoch, rescue.result()) == (2, 1)
    assert len(house.harness.launched) == 1
    await house.engine.close()
