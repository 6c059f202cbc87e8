from __future__ import annotations

import asyncio
from dataclasses import replace

from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.run import Pause
from onbelay_server.domain.state import FINAL, RunState
from onbelay_server.ports.store import Lease, Store
from tests.contract.entities import T0, line, make_run, make_wait, put, start
from tests.manual_clock import ManualClock

LONG_AGO, FAR_AHEAD = 1, 4_000_000_000_000_000


async def test_no_tenant_stands_in_front_of_another(store: Store) -> None:
    flood = [make_run(f"a{n}", tenant="a", ready_us=T0 + n) for n in range(30)]
    late = [make_run(f"b{n}", tenant="b", ready_us=T0 + 100 + n) for n in range(3)]
    await start(store, *flood, *late, make_run("c0", tenant="c", ready_us=T0 + 200))
    await start(store, make_run("d0", tenant="d", state=RunState.PAUSED))

    async def claimable(now_us: int, limit: int) -> list[str]:
        return [run.id for run in await store.claimable(now_us, limit=limit)]

    assert await claimable(T0 + 300, 7) == ["a0", "b0", "c0", "a1", "b1", "a2", "b2"]
    assert await claimable(T0 + 150, 4) == ["a0", "b0", "a1", "b1"]
    assert await claimable(T0 + 1, 9) == ["a0", "a1"]
    assert await claimable(T0 - 1, 9) == []
    assert len(await claimable(T0 + 300, 100)) == 34
    assert await store.next_ready_us() == T0


async def test_no_run_is_ready_in_an_empty_store(store: Store) -> None:
    assert await store.claimable(FAR_AHEAD, limit=5) == []
    assert await store.next_ready_us() is None
    assert await store.next_due_us() is None
    assert await store.due_waits(FAR_AHEAD, limit=5) == []


async def test_a_run_is_claimed_once(store: Store) -> None:
    await start(store, *(make_run(f"r{n}") for n in range(20)))

    def claim(run_id: str, owner: str) -> object:
        def decide(rows: Rows, _now_us: int) -> Change[bool]:
            run = rows.run(run_id)
            assert run is not None
            if run.state is not RunState.QUEUED:
                return Change(result=False)
            claimed = replace(
                run, state=RunState.RUNNING, owner=owner, epoch=run.epoch + 1, attempt=1
            )
            return Change(result=True, put=[claimed], events=[line(run_id)])

        return store.write(Reads(runs=[run_id]), decide)

    claims = [claim(f"r{n}", owner) for owner in ("o1", "o2", "o3") for n in range(20)]
    outcomes = await asyncio.gather(*claims)  # type: ignore[call-overload]

    assert sum(outcome.result for outcome in outcomes) == 20
    runs = [await store.run(f"r{n}") for n in range(20)]
    assert {run.epoch for run in runs if run is not None} == {1}
    assert await store.claimable(FAR_AHEAD, limit=5) == []


async def test_waits_that_have_ended(store: Store) -> None:
    await start(store, make_run("r1"), make_run("r2", state=RunState.STOPPED))
    waits = [make_wait("r1", f"s{n}", until_us=T0 + 10 - n) for n in range(3)]
    await put(store, *waits, make_wait("r1", "endless"), make_wait("r2", "s", until_us=T0))

    assert await store.next_due_us() == T0 + 8
    assert await store.due_waits(T0 + 7, limit=9) == []
    assert await store.due_waits(T0 + 9, limit=9) == [waits[2], waits[1]]
    assert await store.due_waits(T0 + 9, limit=1) == [waits[2]]


async def test_waits_of_a_held_run_end_as_any(store: Store) -> None:
    await start(
        store,
        make_run("held", state=RunState.PAUSED, pause=Pause(requested_by="user:ada", request_us=1)),
        *(make_run(state.value, state=state) for state in FINAL),
    )
    wait = make_wait("held", "s", until_us=T0 + 5)
    await put(store, wait, *(make_wait(state.value, "s", until_us=T0) for state in FINAL))

    assert await store.next_due_us() == T0 + 5
    assert await store.due_waits(T0 + 5, limit=9) == [wait]


async def test_renewing_extends_and_tells_what_is_asked(store: Store, clock: ManualClock) -> None:
    mine = {"owner": "me", "state": RunState.RUNNING, "lease_until_us": T0 + 1}
    await start(
        store,
        make_run("r1", epoch=3, **mine),
        make_run("r2", pause=Pause(request_us=T0), **mine),
        make_run("r3", owner="you", state=RunState.RUNNING, lease_until_us=T0 + 1),
    )

    leases = await store.renew("me", until_us=clock.now_us() + 60_000_000)

    assert sorted(leases, key=lambda lease: lease.run_id) == [
        Lease("r1", 3, RunState.RUNNING, False),
        Lease("r2", 0, RunState.RUNNING, True),
    ]
    first, third = await store.run("r1"), await store.run("r3")
    assert first is not None
    assert third is not None
    assert first.lease_until_us is not None
    assert first.lease_until_us > T0 + 1
    assert third.lease_until_us == T0 + 1
    assert await store.renew("nobody", until_us=FAR_AHEAD) == []

    def keep(rows: Rows, _now_us: int) -> Change[int | None]:
        run = rows.run("r1")
        assert run is not None
        return Change(result=run.lease_until_us, put=[replace(run, attempt=9)])

    # A renewed lease is what the next unit reads and writes back.
    assert (await store.write(Reads(runs=["r1"]), keep)).result == first.lease_until_us
    again = await store.run("r1")
    assert again is not None
    assert again.lease_until_us == first.lease_until_us


async def test_runs_that_nobody_drives(store: Store) -> None:
    running = RunState.RUNNING
    await start(
        store,
        make_run("alive", owner="me", state=running, lease_until_us=LONG_AGO),
        make_run("dead", owner="gone", state=running, lease_until_us=LONG_AGO),
        make_run("stopping", owner="gone", state=RunState.STOPPING, lease_until_us=LONG_AGO),
        make_run("free", state=running),
        make_run("queued"),
        make_run("done", owner="gone", state=RunState.FAILED),
    )

    async def orphans(*alive: str, limit: int = 9) -> list[str]:
        return [run.id for run in await store.orphans(T0, alive=alive, limit=limit)]

    assert await orphans("me") == ["dead", "free", "stopping"]
    assert await orphans("me", "gone") == ["free"]
    assert await orphans() == ["alive", "dead", "free", "stopping"]
    assert await orphans(limit=2) == ["alive", "dead"]


async def test_check_answers(store: Store) -> None:
    await store.check()
