"""Every implementation of a port, under one name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.memory import MemoryStore
from onbelay_server.adapters.sql import SqlStore, migrate
from onbelay_server.ports.store import Store
from tests.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def codec() -> ProtoEventCodec:
    return ProtoEventCodec()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, codec: ProtoEventCodec
) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    opened: Store
    if request.param == "memory":
        opened = MemoryStore(codec=codec, clock=clock)
    else:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/store.db"
        else:
            url = request.getfixturevalue("postgres_database")
        await migrate(url)
        opened = await SqlStore.open(url, codec=codec, clock=clock)
    try:
        yield opened
    finally:
        await opened.close()
