"""One server for the tests of a file, judged at the end of each by what it left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from onbelay.v1 import run_pb2
from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore
from tests.checker import Final, judge
from tests.recorder import Recorder, Recording
from tests.server import Server, serving

FAR = Timestamp(seconds=4_000_000_000)


def state(run: run_pb2.Run) -> str:
    """The state's name without what all of them begin with."""
    return run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_")


async def waiting(client: Recorder, **more: Any) -> str:
    """A run that is queued and stays so."""
    return await client.start("hello", not_before=FAR, **more)


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
