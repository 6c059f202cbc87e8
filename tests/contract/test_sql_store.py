"""What holds for the SQL store over a file: isolation, ownership, reopening, limits."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import (
    DatabaseInUse,
    SchemaMismatch,
    SqlStore,
    StoreError,
    migrate,
    sqlite,
)
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.error import Unavailable
from tests.contract.entities import (
    append,
    line,
    make_approval,
    make_run,
    make_wait,
    put,
    start,
    whole_log,
)
from tests.manual_clock import ManualClock


@pytest.fixture
async def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path}/store.db"
    await migrate(found)
    return found


@pytest.fixture
async def store(url: str, codec: ProtoEventCodec, clock: ManualClock) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(url, codec=codec, clock=clock)
    yield opened
    await opened.close()


async def test_a_unit_whose_statement_fails_fails_alone(store: SqlStore) -> None:
    await start(store, make_run("r1"))

    outcomes = await asyncio.gather(
        append(store, "r1"),
        put(store, make_wait("nobody", "s1")),
        append(store, "r1"),
        put(store, make_run("r2", depth=2**70)),
        append(store, "r1"),
        return_exceptions=True,
    )

    assert [isinstance(one, Exception) for one in outcomes] == [False, True, False, True, False]
    assert await whole_log(store, "r1") == [1, 2, 3, 4]
    assert await store.run("r2") is None
    assert await store.waits(["nobody"]) == {"nobody": []}


async def test_a_reopened_file_shows_everything(
    url: str, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    first = await SqlStore.open(url, codec=codec, clock=clock)
    run = make_run("r1")
    await start(first, run)
    await append(first, "r1", count=300)
    await put(first, make_wait("r1", "s1"), make_approval("a1", run))
    before = await first.run("r1")
    await first.close()

    second = await SqlStore.open(url, codec=codec, clock=clock, synchronous="NORMAL")
    try:
        assert await second.run("r1") == before
        assert await whole_log(second, "r1") == list(range(1, 302))
        assert len((await second.waits(["r1"]))["r1"]) == 1
        assert await second.approval("a1") is not None
        committed = await append(second, "r1")
        assert committed.runs["r1"].events[0].sequence == 302
    finally:
        await second.close()


async def test_one_process_owns_the_file(
    store: SqlStore, url: str, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    with pytest.raises(DatabaseInUse, match="in use"):
        await SqlStore.open(url, codec=codec, clock=clock)
    with pytest.raises(DatabaseInUse):
        await migrate(url)


async def test_another_schema_is_refused_in_one_line(
    url: str, tmp_path: Path, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SchemaMismatch, match="9999"):
        await SqlStore.open(url, codec=codec, clock=clock)

    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(SchemaMismatch, match="no schema"):
        await SqlStore.open(f"sqlite:///{empty}", codec=codec, clock=clock)
    with pytest.raises(SchemaMismatch, match="no database"):
        await SqlStore.open(f"sqlite:///{tmp_path}/none.db", codec=codec, clock=clock)
    assert not (tmp_path / "none.db").exists()
    # A start that failed holds nothing.
    await migrate(f"sqlite:///{empty}")


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite://", "mysql://localhost/x", "sqlite:///:memory:"]
)
async def test_addresses_that_are_none(url: str, codec: ProtoEventCodec) -> None:
    with pytest.raises(StoreError):
        await SqlStore.open(url, codec=codec, clock=ManualClock())


async def test_the_file_is_for_its_owner_only(store: SqlStore, tmp_path: Path) -> None:
    await start(store, make_run("r1"))
    for name in ("store.db", "store.db-wal", "store.db-shm", "store.db.lock"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600, name


async def test_a_database_held_by_somebody_else_is_unavailable(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(store, make_run("r1"))
    outsider = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    outsider.execute("BEGIN IMMEDIATE")
    try:
        writing = asyncio.create_task(append(store, "r1"))
        # Reads go on meanwhile.
        assert await whole_log(store, "r1") == [1]
        with pytest.raises(Unavailable) as refused:
            await writing
        assert refused.value.reason == "STORE_UNAVAILABLE"
        assert refused.value.retry_after_seconds
    finally:
        outsider.execute("ROLLBACK")
        outsider.close()
    await append(store, "r1")
    assert await whole_log(store, "r1") == [1, 2]


async def test_a_file_that_was_removed_is_noticed(store: SqlStore, tmp_path: Path) -> None:
    await store.check()
    (tmp_path / "store.db").rename(tmp_path / "moved.db")
    with pytest.raises(Unavailable):
        await store.check()
    with pytest.raises(Unavailable):
        await append(store, "r1")
    (tmp_path / "store.db").touch()
    with pytest.raises(Unavailable):
        await store.check()


async def test_the_write_ahead_log_stays_small(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(store, make_run("r1"))
    for _ in range(60):
        await append(store, "r1", "x" * 100_000, count=10)
    # 60 MB were written; the log is folded into the file past 16 MB.
    assert os.stat(tmp_path / "store.db-wal").st_size < sqlite.CHECKPOINT_BYTES * 1.5
    assert len(await whole_log(store, "r1")) == 601


async def test_many_rows_in_one_unit(store: SqlStore) -> None:
    runs = [make_run(f"r{number:04}") for number in range(1_500)]
    await store.write(
        Reads(),
        lambda _r, _n: Change(result=None, put=runs, events=[line(run.id) for run in runs]),
    )
    await asyncio.gather(*(append(store, run.id) for run in runs))

    wanted = [run.id for run in runs]
    committed = await store.write(
        Reads(runs=wanted),
        lambda rows, _n: Change(result=[rows.run(run_id) for run_id in wanted]),
    )
    assert {run.last_sequence for run in committed.result if run is not None} == {2}


async def test_large_inputs_are_read_when_they_are_not_kept(store: SqlStore) -> None:
    text = '"' + "x" * 100_000 + '"'
    await start(store, make_run("r1", input_json=text))
    await append(store, "r1")
    committed = await append(store, "r1")
    assert committed.runs["r1"].run.input_json == text
    assert committed.runs["r1"].run.last_sequence == 3
