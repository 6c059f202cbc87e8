"""Watching lists of runs: what is there, what joins and leaves, and what the caller may decide."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from onbelay_server.app.watching.lists import ListPage
from onbelay_server.domain.approval import Approval, Verdict
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.lifecycle import claimed
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import Decision, RunState
from onbelay_server.ports.store import RunFilter
from tests.contract.entities import make_approval
from tests.engine_house import EngineHouse
from tests.patience import until
from tests.resources import ADA, ADMIN, BEN, RIVAL, ROBOT


@pytest.fixture
async def house() -> EngineHouse:
    house = EngineHouse()
    await house.prepare()
    return house


async def claim(house: EngineHouse, run: Run) -> None:
    """Have a worker take the run."""

    def take(rows: object, at: int) -> Change[None]:
        after, event = claimed(rows.run(run.id), "w", at + 9, at)  # type: ignore[attr-defined]
        return Change(result=None, put=[after], events=[event])

    await house.store.write(Reads(runs=[run.id]), take)


async def ask(house: EngineHouse, run: Run, approvers: tuple[str, ...] = ()) -> Approval:
    """A pending approval of the run."""
    approval = make_approval(f"apr_{run.id}", run, approvers=approvers)
    await house.store.write(
        Reads(runs=[run.id], approvals=[approval.id]),
        lambda rows, at: Change(result=None, put=[approval]),
    )
    return approval


async def told(house: EngineHouse, caller: Principal) -> list[ListPage]:
    """The pages of a list up to where it is current."""
    pages = []
    async with aclosing(house.lists.watch(caller, RunFilter(), 10)) as watch:
        async for page in watch:
            if page.caught_up:
                return pages
            pages.append(page)
    raise AssertionError("the list ended")


async def settle(house: EngineHouse) -> None:
    """Let what was changed be told together."""
    await until(lambda: house.clock.sleepers)
    house.clock.advance(0.1)


async def test_a_watched_list_tells_how_things_are(house: EngineHouse) -> None:
    old = await house.start(labels={"a": "1"})
    await house.start(labels={"a": "2"})
    which = RunFilter(labels={"a": "1"}, states=[RunState.QUEUED])
    async with aclosing(house.lists.watch(ADA, which, 10)) as watch:
        assert [run.id for run in (await anext(watch)).runs] == [old.id]
        assert (await anext(watch)).caught_up
        changes = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        new = await house.start(labels={"a": "1"})
        await claim(house, old)
        await settle(house)
        pages = [await changes, await anext(watch)]
    assert [run.id for page in pages for run in page.runs] == [new.id]
    assert [run_id for page in pages for run_id in page.left_run_ids] == [old.id]


async def test_a_list_finds_by_itself_what_no_hint_told(house: EngineHouse) -> None:
    async with aclosing(house.lists.watch(ADA, RunFilter(), 10)) as watch:
        assert (await anext(watch)).caught_up
        house.store._hear.clear()
        page = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        run = await house.start()
        house.clock.advance(1)
        assert [one.id for one in (await page).runs] == [run.id]


async def test_a_list_shows_nobody_elses_runs(house: EngineHouse) -> None:
    await house.start()
    for stranger in (BEN, RIVAL):
        async with aclosing(house.lists.watch(stranger, RunFilter(), 1)) as watch:
            assert (await anext(watch)).caught_up
            page = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            await house.start()
            await settle(house)
            house.clock.advance(1)
            assert not (await page).runs


@pytest.mark.parametrize("caller", [ADA, BEN, ADMIN, RIVAL, ROBOT], ids=lambda one: str(one.id))
async def test_a_list_brings_what_the_caller_may_decide(
    house: EngineHouse, caller: Principal
) -> None:
    mine = await ask(house, await house.start())
    listed = await ask(house, await house.start(), approvers=(BEN.id,))
    await ask(house, await house.start(starter=ROBOT.id), approvers=(ROBOT.id,))
    robots = await ask(house, await house.start(starter=ROBOT.id))
    found = [one for page in await told(house, caller) for one in page.approvals]
    wanted = {ADA: [mine], BEN: [listed], ADMIN: [mine, robots], RIVAL: [], ROBOT: []}[caller]
    assert {one.approval.id for one in found} == {one.id for one in wanted}
    assert not any(one.obstacle for one in found)


async def test_a_decided_approval_is_told_once_more(house: EngineHouse) -> None:
    run = await house.start()
    approval = await ask(house, run)
    async with aclosing(house.lists.watch(ADMIN, RunFilter(states=[RunState.FAILED]), 10)) as watch:
        assert [one.approval.id for one in (await anext(watch)).approvals] == [approval.id]
        assert (await anext(watch)).caught_up
        page = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        verdict = Verdict(decision=Decision.REJECT)
        await house.approvals.decide(ADA, approval.id, verdict, None)
        await settle(house)
        (decided,) = (await page).approvals
    assert (decided.approval.decided_by, decided.obstacle) == (ADA.id, "it is rejected")
