"""A run whose worker is cut off goes on with another; what the first still says is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from onbelay_agent.protocol import Begun, Emit, Emitted, Finish
from onbelay_server.adapters.sql import migrate
from onbelay_server.domain.agent import Agent, AgentRevision, AgentSource, Limits
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.lifecycle import launched
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import Risk, RunState
from tests.crash.workers import LEASE_SECONDS, Worker, worker
from tests.engine_house import AGENT_ID, RETURNED, begin, intent, tool_intent

pytestmark = pytest.mark.postgres


@pytest.fixture
async def pair(postgres_database: str) -> AsyncIterator[tuple[Worker, Worker]]:
    await migrate(postgres_database)
    async with worker("worker_a", postgres_database) as a:
        await a.store.write(
            Reads(agents=[AGENT_ID], revisions=[(AGENT_ID, 1)]),
            lambda rows, at: Change(result=None, put=[_agent(), _revision()]),
        )
        async with worker("worker_b", postgres_database) as b:
            yield a, b


def _agent() -> Agent:
    return Agent(
        id=AGENT_ID,
        tenant="default",
        name="played",
        owner="user:olga",
        source=AgentSource.CODE,
        revision=1,
        etag="1",
        create_us=0,
        update_us=0,
    )


def _revision() -> AgentRevision:
    return AgentRevision(
        agent_id=AGENT_ID,
        revision=1,
        create_us=0,
        created_by="user:olga",
        blueprint="played",
        allowed_tools=("look", "write", "upsert"),
        highest_risk=Risk.WRITE,
        limits=Limits(grace_seconds=1, kill_seconds=1),
    )


async def started(one: Worker, run_id: str = "run_1") -> None:
    now_us = one.clock.now_us()
    run = Run(
        id=run_id,
        tenant="default",
        starter="user:ada",
        root_id=run_id,
        agent_id=AGENT_ID,
        agent_name="played",
        agent_revision=1,
        agent_owner="user:olga",
        input_json="{}",
        ready_us=now_us,
        create_us=now_us,
        update_us=now_us,
    )
    await one.store.write(
        Reads(runs=[run_id]),
        lambda rows, at: Change(result=None, put=[run], events=[launched(run, "")]),
    )


async def holder(pair: tuple[Worker, Worker]) -> tuple[Worker, Worker]:
    """Who launched the run's copy, and the other."""
    async with asyncio.timeout(10.0):
        while True:
            for one, other in (pair, pair[::-1]):
                if one.harness.launched:
                    return one, other
            await asyncio.sleep(0.01)


async def test_a_worker_that_is_cut_off_ends_its_work_before_another_begins(
    pair: tuple[Worker, Worker],
) -> None:
    await started(pair[0])
    first, second = await holder(pair)
    copy = await first.copy()
    copy.say(begin(intent("s1"), tool_intent("t1", "upsert")))
    await copy.heard(Begun)
    first.link.is_cut = True
    states: list[bool] = []
    second.harness.on_launch = lambda _: states.append(copy.is_killed)
    other = await second.copy(1, LEASE_SECONDS * 4)
    assert states == [True]
    assert [record.step_id for record in other.start.journal] == ["s1", "t1"]
    # Healed, the first has nothing to say any more.
    first.link.is_cut = False
    copy.say(Finish(step_id="s1", stage=0, ok_json='"too late"'), RETURNED)
    other.say(begin(stage=0), Finish(step_id="s1", stage=0, ok_json='"in time"'))
    other.say(RETURNED)
    async with asyncio.timeout(5.0):
        while (run := await second.run("run_1")).state is not RunState.SUCCEEDED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert run.epoch == 2
    log = await second.log("run_1")
    results = [getattr(event.payload, "result_json", None) for event in log]
    assert '"too late"' not in results
    assert [event.epoch for event in log] == sorted(event.epoch for event in log)


async def test_a_worker_that_slept_through_its_lease_is_refused_by_the_store(
    pair: tuple[Worker, Worker],
) -> None:
    await started(pair[0])
    first, second = await holder(pair)
    copy = await first.copy()
    copy.say(begin(intent("s1")))
    await copy.heard(Begun)
    # Suspended: no renewal goes out, and its clock does not know that its lease is over.
    first.clock.freeze()
    _renew_nothing(first)
    other = await second.copy(1, LEASE_SECONDS * 4)
    before = await second.log("run_1")
    zombie = Emit(place="main:emit#1", kind="text", text="from beyond")
    copy.say(Emitted(emits=(zombie,)), Finish(step_id="s1", stage=0, ok_json='"too late"'))
    async with asyncio.timeout(5.0):
        while not copy.is_killed:  # noqa: ASYNC110 - the engine's own doing
            await asyncio.sleep(0.01)
    assert await second.log("run_1") == before
    other.say(begin(stage=0), Finish(step_id="s1", stage=0, ok_json='"in time"'))
    other.say(RETURNED)
    async with asyncio.timeout(5.0):
        while (await second.run("run_1")).state is not RunState.SUCCEEDED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _renew_nothing(one: Worker) -> None:
    async def renew(owner: str, *, until_us: int) -> list[Any]:
        return await asyncio.Future()

    one.link.replaced["renew"] = renew


async def test_two_workers_claim_each_run_once(pair: tuple[Worker, Worker]) -> None:
    count = 200
    for one in pair:
        one.harness.on_launch = lambda copy: copy.say(RETURNED)
    await asyncio.gather(*(started(pair[n % 2], f"run_{n:04}") for n in range(count)))
    async with asyncio.timeout(20.0):
        while True:
            runs = [await pair[0].run(f"run_{n:04}") for n in range(count)]
            if all(run.state is RunState.SUCCEEDED for run in runs):
                break
            await asyncio.sleep(0.05)
    assert {run.epoch for run in runs} == {1}
    assert sum(len(one.harness.launched) for one in pair) == count
