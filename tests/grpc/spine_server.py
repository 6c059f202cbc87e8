"""One server for the tests of a file, judged at the end of each by what it left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore
from tests.checker import Final, judge
from tests.recorder import Recording
from tests.server import Server, serving


async def final_of(database: str) -> Final:
    """What the database holds, once its server is gone."""
    store = await SqlStore.open(database, codec=ProtoEventCodec(), clock=SystemClock())
    try:
        return await Final.of(store)
    finally:
        await store.close()


@asynccontextmanager
async def judged_server(state_dir: Path, **settings: Any) -> AsyncIterator[Server]:
    """A server in this process; whatever the test did with it, every promise must have held."""
    recording = Recording()
    async with serving(state_dir, recording, **settings) as server:
        yield server
    broken = judge(recording, await final_of(server.database))
    assert not broken, "\n".join(broken[:20])
