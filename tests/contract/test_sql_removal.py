"""Long logs go behind their runs, in short steps, whatever happens in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore, logs, migrate
from onbelay_server.adapters.sql.database import Statement
from onbelay_server.adapters.sql.log_queries import LogQueries
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.state import RunState
from tests.contract.entities import append, make_run, start, whole_log
from tests.manual_clock import ManualClock

LENGTH = 7_000


@pytest.fixture
async def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path}/store.db"
    await migrate(found)
    return found


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[int]]:
    """How many rows of the removed log, its segments and its mark are in the file."""

    def count() -> list[int]:
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            return [
                connection.execute(f"SELECT count(*) FROM {table} WHERE run_id = 'r1'").fetchone()[
                    0
                ]
                for table in ("run_events", "segments", "removals", "sealings")
            ]

    return count


async def remove(store: SqlStore, *run_ids: str) -> None:
    def decide(rows: Rows, _now_us: int) -> Change[None]:
        runs = [rows.run(run_id) for run_id in run_ids]
        return Change(result=None, delete=[run for run in runs if run is not None])

    await store.write(Reads(runs=run_ids), decide)


async def fill(store: SqlStore, run_id: str) -> None:
    ended = make_run(run_id, state=RunState.SUCCEEDED, finish_us=1)
    await start(store, replace(ended, state=RunState.RUNNING))
    await append(store, run_id, "x" * 100, count=LENGTH)
    await store.write(Reads(runs=[run_id]), lambda _r, _n: Change(result=None, put=[ended]))
    await append(store, run_id)
    await store.seal(run_id, through=None)


async def until_gone(left: Callable[[], list[int]]) -> None:
    async with asyncio.timeout(20):
        while any(left()):  # noqa: ASYNC110 - the file says it, not the store
            await asyncio.sleep(0.01)


async def test_a_long_log_goes_in_steps_between_other_writes(
    url: str,
    codec: ProtoEventCodec,
    clock: ManualClock,
    left: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = await SqlStore.open(url, codec=codec, clock=clock)
    deleted: list[int] = []
    drop = LogQueries.drop_events

    def noting(queries: LogQueries, run_id: str, through: int) -> Statement:
        deleted.append(through)
        return drop(queries, run_id, through)

    monkeypatch.setattr(LogQueries, "drop_events", noting)
    try:
        await fill(store, "r1")
        await start(store, make_run("r2"))

        await remove(store, "r1")

        # The run is gone before its log is, and nothing of the log can be read.
        assert left()[2] == 1
        assert left()[0] > 2_000
        assert await store.run("r1") is None
        assert await whole_log(store, "r1") == []
        assert await store.frames("r1", after=0, limit_bytes=1) == []
        await append(store, "r2")
        await until_gone(left)
        steps = [after - before for before, after in zip([0, *deleted], deleted, strict=False)]
        assert max(steps) <= logs.MOST_REMOVED_EVENTS <= 5_000
        assert len(steps) >= 4
        assert await whole_log(store, "r2") == [1, 2]
    finally:
        await store.close()


async def test_a_log_half_removed_goes_when_the_store_is_opened_again(
    url: str, codec: ProtoEventCodec, clock: ManualClock, left: Callable[[], list[int]]
) -> None:
    store = await SqlStore.open(url, codec=codec, clock=clock)
    await fill(store, "r1")
    await remove(store, "r1")
    await store.close()
    assert left()[0] > 0

    store = await SqlStore.open(url, codec=codec, clock=clock)
    try:
        assert await whole_log(store, "r1") == []
        await until_gone(left)
    finally:
        await store.close()


async def test_many_short_logs_go_with_their_runs_up_to_a_bound(
    url: str, codec: ProtoEventCodec, clock: ManualClock, tmp_path: Path
) -> None:
    store = await SqlStore.open(url, codec=codec, clock=clock)
    names = [f"r{number}" for number in range(5)]
    try:
        for name in names:
            await start(store, make_run(name))
            await append(store, name, count=700)
        await remove(store, *names)
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            query = "SELECT count(DISTINCT run_id) FROM run_events"
            assert connection.execute(query).fetchone()[0] <= 3
            async with asyncio.timeout(20):
                while connection.execute(query).fetchone()[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    finally:
        await store.close()
