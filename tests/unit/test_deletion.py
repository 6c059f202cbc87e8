"""Deleting runs: whole trees that have ended, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from onbelay_server.app.engine.sweeper import Retention, Sweeper
from onbelay_server.app.idempotency import Idempotency
from onbelay_server.app.runs import Runs
from onbelay_server.domain.error import FailedPrecondition, InvalidArgument, NotFound
from onbelay_server.domain.request import RequestKey
from onbelay_server.domain.state import RunState
from tests.engine_house import EngineHouse
from tests.resources import ADA, BEN


@pytest.fixture
def house() -> EngineHouse:
    return EngineHouse()


@pytest.fixture
def runs(house: EngineHouse) -> Runs:
    return Runs(house.store, Sweeper(house.store, house.blobs, house.clock, Retention()))


async def tree(house: EngineHouse, leaf: RunState) -> tuple[str, str]:
    """A root that has ended and its child in the given state."""
    root = await house.start(state=RunState.SUCCEEDED)
    child = await house.start(
        state=leaf, parent_id=root.id, root_id=root.id, depth=1, starter=root.starter
    )
    return root.id, child.id


async def test_a_tree_with_a_run_that_goes_on_names_it(house: EngineHouse, runs: Runs) -> None:
    root, child = await tree(house, RunState.BLOCKED)
    with pytest.raises(FailedPrecondition) as refused:
        await runs.delete(ADA, root)
    assert refused.value.reason == "RUN_NOT_FINISHED"
    assert refused.value.metadata == {"run_id": child, "state": "BLOCKED"}


async def test_a_part_of_a_tree_is_not_deleted(house: EngineHouse, runs: Runs) -> None:
    root, child = await tree(house, RunState.STOPPED)
    with pytest.raises(InvalidArgument) as refused:
        await runs.delete(ADA, child)
    assert [one.field for one in refused.value.fields] == ["run_id"]
    assert refused.value.metadata == {"root_run_id": root}
    with pytest.raises(NotFound):
        await runs.delete(BEN, child)


async def test_a_request_that_comes_twice_at_once_is_answered_alike(
    house: EngineHouse, runs: Runs
) -> None:
    root, _ = await tree(house, RunState.FAILED)
    request = Idempotency(RequestKey(ADA.tenant, ADA.id, "DeleteRun", "r1"), "body")
    twice = (runs.delete(ADA, root, request) for _ in range(2))
    assert await asyncio.gather(*twice) == [2, 2]
    with pytest.raises(NotFound):
        await runs.delete(ADA, root)
