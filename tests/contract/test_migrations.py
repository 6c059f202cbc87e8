from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore, StoreError, migrate
from onbelay_server.adapters.sql.database import parsed
from onbelay_server.adapters.sql.tables import metadata
from tests.contract.entities import append, make_run, start, whole_log
from tests.manual_clock import ManualClock


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/er/store.db"
    return str(request.getfixturevalue("postgres_database"))


async def test_the_migrated_schema_is_that_of_the_tables(url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    await migrate(url)
    engine = create_async_engine(parsed(url))
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()


async def test_migrating_again_keeps_the_data(
    url: str, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    await migrate(url)
    store = await SqlStore.open(url, codec=codec, clock=clock)
    await start(store, make_run("r1"))
    await append(store, "r1", count=5)
    before = await store.run("r1")
    await store.close()

    await migrate(url)

    store = await SqlStore.open(url, codec=codec, clock=clock)
    try:
        assert await store.run("r1") == before
        assert await whole_log(store, "r1") == [1, 2, 3, 4, 5, 6]
    finally:
        await store.close()


async def test_a_server_that_is_not_there_is_named_without_its_password(
    codec: ProtoEventCodec, clock: ManualClock
) -> None:
    url = "postgresql://ada:s3cret@127.0.0.1:1/x"
    for attempt in (migrate(url), SqlStore.open(url, codec=codec, clock=clock)):
        with pytest.raises(StoreError) as refused:
            await attempt
        assert "s3cret" not in str(refused.value)
