"""Sealed logs: frames hold byte for byte what the rows hold, wherever one begins to read."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.state import RunState
from onbelay_server.ports.store import (
    LONG_LOG_EVENTS,
    MAX_FRAME_BYTES,
    MAX_FRAME_EVENTS,
    Frame,
    Store,
    StoredEvent,
)
from tests.contract.entities import append, make_run, start

WHOLE = MAX_FRAME_EVENTS


async def finish(store: Store, run_id: str) -> None:
    def end(rows: Rows, now_us: int) -> Change[None]:
        run = rows.run(run_id)
        assert run is not None
        ended = replace(run, state=RunState.SUCCEEDED, finish_us=now_us)
        return Change(result=None, put=[ended])

    await store.write(Reads(runs=[run_id]), end)
    await append(store, run_id, "ended")


async def delete(store: Store, run_id: str) -> None:
    def remove(rows: Rows, _now_us: int) -> Change[None]:
        run = rows.run(run_id)
        assert run is not None
        return Change(result=None, delete=[run])

    await store.write(Reads(runs=[run_id]), remove)


async def rows_of(store: Store, run_id: str) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while page := await store.events(run_id, after=len(found), limit=1000, max_bytes=10**9):
        found += page
    return found


async def frames_of(store: Store, run_id: str, after: int = 0) -> list[Frame]:
    found: list[Frame] = []
    while page := await store.frames(run_id, after=after, limit_bytes=60_000):
        found += page
        after = page[-1].last
    return found


async def check(store: Store, codec: ProtoEventCodec, run_id: str, after: int = 0) -> int:
    """Compare frames with rows, byte for byte; the last sealed sequence."""
    rows = await rows_of(store, run_id)
    for frame in await frames_of(store, run_id, after):
        assert frame.first == after + 1
        events = rows[after : frame.last]
        assert frame.data == codec.frame(event.body for event in events)
        assert len(events) <= MAX_FRAME_EVENTS
        assert len(events) == 1 or sum(len(event.body) for event in events) <= MAX_FRAME_BYTES
        after = frame.last
    return after


async def test_a_live_log_is_sealed_in_whole_frames(store: Store, codec: ProtoEventCodec) -> None:
    await start(store, make_run("r1"))
    assert await store.seal("r1", through=None) == 0
    await append(store, "r1", count=3 * WHOLE)

    assert await store.seal("r1", through=2 * WHOLE + 5) == 2
    assert await check(store, codec, "r1") == 2 * WHOLE
    assert await store.seal("r1", through=None) == 1
    assert await store.seal("r1", through=None) == 0
    assert await check(store, codec, "r1") == 3 * WHOLE


async def test_the_rest_is_sealed_once_the_run_has_ended(
    store: Store, codec: ProtoEventCodec
) -> None:
    await start(store, make_run("r1"))
    await append(store, "r1", count=WHOLE)
    await finish(store, "r1")
    assert await store.unsealed(9) == ["r1"]

    assert await store.seal("r1", through=None) == 2
    assert await check(store, codec, "r1") == WHOLE + 2
    assert await store.unsealed(9) == []
    # A log that grows after its end is taken up again, behind a frame that stays as it is.
    await append(store, "r1", "late", count=3)
    assert await store.unsealed(9) == ["r1"]
    assert await store.seal("r1", through=None) == 1
    assert await check(store, codec, "r1") == WHOLE + 5
    assert await store.unsealed(9) == []


async def test_frames_can_be_taken_up_anywhere(store: Store, codec: ProtoEventCodec) -> None:
    await start(store, make_run("r1"))
    for size in (1, 200, 20_000, 7):
        await append(store, "r1", "é" * size, count=WHOLE // 2)
    await finish(store, "r1")
    await store.seal("r1", through=None)
    last = 2 * WHOLE + 2
    for after in (1, 2, 60, WHOLE - 1, WHOLE, WHOLE + 1, last - 1):
        assert await check(store, codec, "r1", after) == last
    for after in (last, last + 1, 10**6):
        assert await store.frames("r1", after=after, limit_bytes=1) == []
    one = await store.frames("r1", after=0, limit_bytes=1)
    assert len(one) == 1


async def test_large_events_fill_a_frame_by_their_bytes(
    store: Store, codec: ProtoEventCodec
) -> None:
    await start(store, make_run("r1"))
    await append(store, "r1", "x" * 100_000, count=5)
    await append(store, "r1", "x" * (MAX_FRAME_BYTES + 1), count=2)
    await finish(store, "r1")
    await store.seal("r1", through=None)
    assert await check(store, codec, "r1") == 9
    ends = [frame.last for frame in await frames_of(store, "r1")]
    assert ends == [3, 5, 6, 7, 8, 9]


async def test_which_logs_want_sealing(store: Store) -> None:
    await start(store, *(make_run(name) for name in ("live", "long", "short", "done")))
    await append(store, "live", count=LONG_LOG_EVENTS - 1)
    await append(store, "long", count=LONG_LOG_EVENTS)
    await append(store, "done", count=WHOLE)
    await finish(store, "short")
    await finish(store, "done")

    assert await store.unsealed(9) == ["done", "long"]
    assert await store.unsealed(1) == ["done"]
    await store.seal("long", through=None)
    assert await store.unsealed(9) == ["done"]
    await append(store, "long", count=LONG_LOG_EVENTS)
    assert await store.unsealed(9) == ["done", "long"]


async def test_a_log_is_sealed_once_by_all_who_try(store: Store, codec: ProtoEventCodec) -> None:
    await start(store, make_run("r1"))
    for _ in range(20):
        await append(store, "r1", count=100)
    await finish(store, "r1")
    made = await asyncio.gather(*(store.seal("r1", through=None) for _ in range(4)))
    assert sum(made) == 16
    assert await check(store, codec, "r1") == 2002


@pytest.mark.parametrize("count", [300, 3_000])
async def test_nothing_stays_of_a_deleted_log(
    store: Store, codec: ProtoEventCodec, count: int
) -> None:
    await start(store, make_run("r1"), make_run("r2"))
    await append(store, "r1", count=count)
    await append(store, "r2", count=count)
    await finish(store, "r1")
    await store.seal("r1", through=None)
    await store.seal("r2", through=None)

    await delete(store, "r1")

    assert await store.run("r1") is None
    assert await rows_of(store, "r1") == []
    assert await frames_of(store, "r1") == []
    assert await store.unsealed(9) == []
    assert await store.seal("r1", through=None) == 0
    assert await store.seal("nobody", through=None) == 0
    assert await check(store, codec, "r2") == count // WHOLE * WHOLE
