"""Two processes' stores on one PostgreSQL database, and a server that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore, migrate
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import Unavailable
from onbelay_server.domain.request import RequestKey
from onbelay_server.domain.state import RunState
from onbelay_server.ports.store import Committed
from tests.contract.entities import (
    append,
    line,
    make_agent,
    make_request,
    make_run,
    put,
    start,
    whole_log,
)
from tests.manual_clock import ManualClock
from tests.postgres import PostgresCluster

pytestmark = pytest.mark.postgres


@pytest.fixture
async def stores(
    postgres_database: str, codec: ProtoEventCodec
) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    """Two replicas whose own clocks are an hour apart."""
    await migrate(postgres_database)
    ahead = ManualClock()
    ahead.step(3_600)
    one = await SqlStore.open(postgres_database, codec=codec, clock=ManualClock())
    other = await SqlStore.open(postgres_database, codec=codec, clock=ahead)
    yield one, other
    await one.close()
    await other.close()


async def test_logs_stay_dense_under_two_writers(
    stores: tuple[SqlStore, SqlStore], codec: ProtoEventCodec
) -> None:
    await start(stores[0], *(make_run(f"r{number}") for number in range(3)))

    await asyncio.gather(*(append(stores[n % 2], f"r{n % 3}") for n in range(150)))

    for number in range(3):
        assert await whole_log(stores[1], f"r{number}") == list(range(1, 52))
        events = await stores[0].events(f"r{number}", after=0, limit=100, max_bytes=10**6)
        times = [codec.decode(event.body).time_us for event in events]
        assert times == sorted(times)


async def test_both_may_lock_runs_in_any_order(stores: tuple[SqlStore, SqlStore]) -> None:
    names = [f"r{number}" for number in range(6)]
    await start(stores[0], *(make_run(name) for name in names))

    def touch(order: list[str]) -> tuple[Reads, object]:
        def decide(rows: Rows, _now_us: int) -> Change[None]:
            assert all(rows.run(name) is not None for name in order)
            return Change(result=None, events=[line(name) for name in order])

        return Reads(runs=order), decide

    units = [touch(names if n % 2 else names[::-1]) for n in range(60)]
    await asyncio.gather(
        *(stores[n % 2].write(reads, decide) for n, (reads, decide) in enumerate(units))  # type: ignore[arg-type]
    )
    assert await whole_log(stores[0], "r0") == list(range(1, 62))


async def test_one_request_makes_one_run_across_processes(
    stores: tuple[SqlStore, SqlStore],
) -> None:
    key = RequestKey("acme", "user:ada", "StartRun", "q1")

    async def begin(number: int) -> str:
        run_id = f"r{number:03}"

        def decide(rows: Rows, _now_us: int) -> Change[str]:
            known = rows.request(key)
            if known is not None:
                return Change(result=known.result_id)
            made = make_request("q1", run_id)
            return Change(result=run_id, put=[make_run(run_id), made], events=[line(run_id)])

        reads = Reads(runs=[run_id], requests=[key])
        return (await stores[number % 2].write(reads, decide)).result

    answers = await asyncio.gather(*(begin(number) for number in range(100)))

    assert len(set(answers)) == 1
    found = [n for n in range(100) if await stores[0].run(f"r{n:03}") is not None]
    assert [f"r{number:03}" for number in found] == [answers[0]]


async def test_one_of_two_claims_wins(stores: tuple[SqlStore, SqlStore]) -> None:
    await start(stores[0], *(make_run(f"r{n:02}") for n in range(40)))

    async def claim(store: SqlStore, owner: str, run_id: str) -> bool:
        def decide(rows: Rows, now_us: int) -> Change[bool]:
            run = rows.run(run_id)
            assert run is not None
            if run.state is not RunState.QUEUED:
                return Change(result=False)
            claimed = replace(
                run,
                state=RunState.RUNNING,
                owner=owner,
                epoch=run.epoch + 1,
                lease_until_us=now_us + 30_000_000,
            )
            return Change(result=True, put=[claimed], events=[line(run_id)])

        return (await store.write(Reads(runs=[run_id]), decide)).result

    outcomes = await asyncio.gather(
        *(claim(store, f"o{at}", f"r{n:02}") for n in range(40) for at, store in enumerate(stores))
    )
    assert sum(outcomes) == 40
    # Leases count by the server's clock, whatever the processes' own clocks say.
    for store in stores:
        assert await store.orphans(0, alive=["o0"], limit=99) == []
    await stores[0].renew("o0", until_us=ManualClock().now_us() - 1_000_000)
    mine = [run.id for run in await stores[1].orphans(0, alive=["o1"], limit=99)]
    assert len(mine) == len([n for n in range(40) if outcomes[2 * n]])


async def test_a_child_born_meanwhile_is_in_the_tree(stores: tuple[SqlStore, SqlStore]) -> None:
    await start(stores[0], make_run("root"))

    async def bear(number: int) -> Committed[bool]:
        child = make_run(f"c{number}", root_id="root", parent_id="root", depth=1)

        def decide(rows: Rows, _now_us: int) -> Change[bool]:
            root = rows.run("root")
            assert root is not None
            if root.state is not RunState.QUEUED:
                return Change(result=False)
            return Change(result=True, put=[child], events=[line(child.id), line("root")])

        return await stores[1].write(Reads(runs=["root", child.id]), decide)

    def stop(rows: Rows, _now_us: int) -> Change[None]:
        stopped = [replace(run, state=RunState.STOPPED) for run in rows.tree("root")]
        return Change(result=None, put=stopped)

    births = [asyncio.create_task(bear(number)) for number in range(30)]
    await births[0]
    await stores[0].write(Reads(trees=["root"]), stop)
    born = [number for number, birth in enumerate(births) if (await birth).result]

    states = [(await stores[0].run(f"c{number}")) for number in born]
    assert {run.state for run in states if run is not None} == {RunState.STOPPED}


async def test_a_name_taken_elsewhere_is_seen(stores: tuple[SqlStore, SqlStore]) -> None:
    async def register(store: SqlStore, agent_id: str) -> bool:
        def decide(rows: Rows, _now_us: int) -> Change[bool]:
            if rows.agent_named("acme", "greeter") is not None:
                return Change(result=False)
            return Change(result=True, put=[make_agent(agent_id, "greeter")])

        return (await store.write(Reads(agent_names=[("acme", "greeter")]), decide)).result

    outcomes = await asyncio.gather(
        *(register(stores[n % 2], f"agt_{n}") for n in range(10)), return_exceptions=True
    )
    assert [one for one in outcomes if one is True] == [True]
    assert not [one for one in outcomes if isinstance(one, BaseException)]


async def test_lost_connections_are_unavailable_and_come_back(
    stores: tuple[SqlStore, SqlStore], postgres_cluster: PostgresCluster, postgres_database: str
) -> None:
    store, _ = stores
    await start(store, make_run("r1"))
    name = postgres_database.rpartition("/")[2]
    lost = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    written = 1
    for _ in range(5):
        await asyncio.to_thread(postgres_cluster.run, lost)
        for attempt in (append(store, "r1"), append(store, "r1")):
            try:
                await attempt
            except Unavailable:
                continue
            written += 1
    run = None
    while run is None:
        try:
            run = await store.run("r1")
        except Unavailable:
            await asyncio.sleep(0)
    assert run.last_sequence == written
    assert await whole_log(store, "r1") == list(range(1, written + 1))
    await put(store, make_run("r2"))
