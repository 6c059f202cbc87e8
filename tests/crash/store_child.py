"""A process that writes to a store until it is killed, and says what it was told is durable."""

from __future__ import annotations

import asyncio
import sys

from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore
from onbelay_server.domain.change import Change, Reads
from tests.contract.entities import append, line, make_run

WRITERS = 8


async def write_for_ever(store: SqlStore, writer: int) -> None:
    """Runs with events, each acknowledged by a line once its commit returned."""
    number = 0
    while True:
        number += 1
        run_id = f"w{writer}-{number}"
        run = make_run(run_id)
        await store.write(
            Reads(runs=[run_id]),
            lambda _rows, _now_us, run=run: Change(  # type: ignore[misc]
                result=None, put=[run], events=[line(run.id), line(run.id)]
            ),
        )
        print(f"{run_id} 2", flush=True)
        committed = await append(store, run_id, "x" * 500, count=10)
        print(f"{run_id} {committed.runs[run_id].run.last_sequence}", flush=True)


async def main(url: str) -> None:
    store = await SqlStore.open(url, codec=ProtoEventCodec(), clock=SystemClock())
    await asyncio.gather(*(write_for_ever(store, writer) for writer in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
