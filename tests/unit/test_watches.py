"""Watching a run: history and then live, from positions, filters and tails of any age."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.app.pauses import Pauses
from onbelay_server.app.watching.watches import (
    MAX_LIST_BYTES,
    Draining,
    Position,
    StreamEnd,
    WatchPage,
)
from onbelay_server.domain.change import Change, NewEvent, Reads
from onbelay_server.domain.error import NotFound, OutOfRange
from onbelay_server.domain.event import LogWritten, OperationStarted, ProgressReported
from onbelay_server.domain.lifecycle import claimed, ended
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import RunState, StepKind
from onbelay_server.domain.transition import Trigger
from onbelay_server.ports.store import MAX_FRAME_EVENTS
from tests.contract.entities import append
from tests.engine_house import EngineHouse, entries
from tests.patience import until
from tests.resources import ADA, BEN, RIVAL


@pytest.fixture
async def house() -> EngineHouse:
    house = EngineHouse()
    await house.prepare()
    return house


async def move(house: EngineHouse, run: Run, *, is_end: bool = False) -> None:
    """Claim the run, or end it."""

    def decide(rows: object, at: int) -> Change[None]:
        current = rows.run(run.id)  # type: ignore[attr-defined]
        if is_end:
            after, events = ended(current, Trigger.RETURN, RunState.SUCCEEDED, at)
        else:
            after, event = claimed(current, "w", at + 9, at)
            events = [event]
        return Change(result=None, put=[after], events=events)

    await house.store.write(Reads(runs=[run.id]), decide)


def sequences(pages: list[WatchPage]) -> list[int]:
    return [number for page in pages for number in numbers(page.frame)]


CODEC = ProtoEventCodec()


def numbers(frame: bytes) -> list[int]:
    return [CODEC.decode(body).sequence for body in entries(frame)]


async def all_of(watch: AsyncIterator[WatchPage]) -> list[WatchPage]:
    return [page async for page in watch]


async def test_a_change_while_a_reply_leaves_is_told(house: EngineHouse) -> None:
    run = await house.start()
    async with aclosing(house.watches.watch(ADA, run.id, Position())) as watch:
        first = await anext(watch)
        assert first.run is not None
        assert first.run.state is RunState.QUEUED
        # The first reply is on its way: the watch has not gone on yet.
        await move(house, run)
        second = await anext(watch)
        assert second.run is not None
        assert second.run.state is RunState.RUNNING
        await append(house.store, run.id)
        third = await anext(watch)
        assert third.run is None
        await move(house, run, is_end=True)
        rest = [page async for page in watch]
    assert rest[-1].end is StreamEnd.FINISHED
    assert sequences([first, second, third, *rest]) == [1, 2, 3, 4, 5]


async def test_a_backlog_comes_in_pages_and_live_events_behind_it(house: EngineHouse) -> None:
    run = await house.start()
    await move(house, run)
    await append(house.store, run.id, count=1000)
    watch = asyncio.create_task(all_of(house.watches.watch(ADA, run.id, Position(after=2))))
    for _ in range(50):
        await append(house.store, run.id)
        await asyncio.sleep(0)
    await move(house, run, is_end=True)
    pages = await watch
    assert sequences(pages) == list(range(3, 1055))
    assert max(len(entries(page.frame)) for page in pages) == MAX_FRAME_EVENTS


async def test_a_tail_that_lags_is_read_past_from_the_store(house: EngineHouse) -> None:
    """What another process wrote is in no hint and no tail; it is told all the same."""
    run = await house.start()
    await move(house, run)
    async with aclosing(house.watches.watch(ADA, run.id, Position())) as watch:
        assert sequences([await anext(watch), await anext(watch)]) == [1, 2]
        house.store._hear.clear()
        await append(house.store, run.id, count=3)
        house.clock.advance(5)
        assert sequences([await anext(watch)]) == [3, 4, 5]


async def test_heartbeats_carry_the_position_past_a_filter(house: EngineHouse) -> None:
    run = await house.start()
    await append(house.store, run.id, count=5)
    kinds = (house.codec.number(ProgressReported),)
    where = Position(kinds=kinds, heartbeat_seconds=10)
    async with aclosing(house.watches.watch(ADA, run.id, where)) as watch:
        assert (await anext(watch)).complete_through == 0
        beat = asyncio.ensure_future(anext(watch))
        read = house.clock.readings
        await until(lambda: house.clock.readings > read + 10)
        assert not beat.done()
        house.clock.advance(10)
        page = await beat
    assert (page.frame, page.complete_through, page.run) == (b"", 6, None)


async def test_positions_out_of_range_and_strangers_are_refused(house: EngineHouse) -> None:
    run = await house.start()
    with pytest.raises(OutOfRange) as refused:
        await all_of(house.watches.watch(ADA, run.id, Position(after=2)))
    assert refused.value.metadata == {"oldest_sequence": "1", "last_sequence": "1"}
    for stranger in (BEN, RIVAL):
        with pytest.raises(NotFound):
            await all_of(house.watches.watch(stranger, run.id, Position()))


async def test_a_drain_ends_a_watch_with_its_position(house: EngineHouse) -> None:
    run = await house.start()
    async with aclosing(house.watches.watch(ADA, run.id, Position())) as watch:
        await anext(watch)
        await anext(watch)
        last = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        house.watches.drain()
        page = await last
        assert (page.end, page.complete_through) == (StreamEnd.RECONNECT, 1)
        with pytest.raises(Draining):
            await anext(watch)


async def test_a_watched_run_that_is_deleted_ends_the_watch(house: EngineHouse) -> None:
    run = await house.start()
    async with aclosing(house.watches.watch(ADA, run.id, Position())) as watch:
        await anext(watch)
        await anext(watch)
        await house.store.write(
            Reads(runs=[run.id]), lambda rows, at: Change(result=None, delete=[run])
        )
        house.clock.advance(5)
        with pytest.raises(NotFound):
            await anext(watch)


async def test_a_page_of_the_list_that_is_cut_says_so(house: EngineHouse) -> None:
    """Cut exactly at the limit of bytes, the page must not claim what it does not hold."""
    run = await house.start()
    await append(house.store, run.id)
    two = await house.store.events(run.id, after=0, limit=9, max_bytes=2**20)
    used = sum(len(event.body) for event in two)
    # Lengths from 16 KB to 2 MB take three bytes to write, in the text and in what holds it.
    small = len(two[1].body) - len("hello")
    text = "x" * (MAX_LIST_BYTES - used - small - 4)
    await append(house.store, run.id, text)
    page = await house.watches.list(ADA, run.id, Position(), limit=9, wait_seconds=0)
    size = sum(len(body) for body in entries(page.frame))
    assert size == MAX_LIST_BYTES
    await append(house.store, run.id)
    page = await house.watches.list(ADA, run.id, Position(), limit=9, wait_seconds=0)
    assert (numbers(page.frame), page.complete_through) == ([1, 2, 3], 3)


async def test_a_list_waits_for_what_its_filter_lets_through(house: EngineHouse) -> None:
    run = await house.start()
    where = Position(kinds=(house.codec.number(LogWritten),))
    listing = asyncio.create_task(house.watches.list(ADA, run.id, where, limit=9, wait_seconds=30))
    await house.looked("events")
    await move(house, run)
    await house.looked("events")
    assert not listing.done()
    await append(house.store, run.id)
    page = await listing
    assert (numbers(page.frame), page.complete_through) == ([3], 3)


# ---- tails ---------------------------------------------------------------------------------------


# ---- waiting for attention -----------------------------------------------------------------------


async def needs_somebody(house: EngineHouse, run: Run, after: int = 0) -> bool:
    """Whether WaitRun says so at once."""
    _, timed_out = await house.watches.wait(
        ADA, run.id, for_attention=True, after_sequence=after, timeout_seconds=0
    )
    return not timed_out


async def waiting(house: EngineHouse, kind: StepKind, **subject: str) -> Run:
    """A run that waits for this."""
    run = await house.start()
    wait = Wait(run_id=run.id, step_id="s", kind=kind, since_us=1, **subject)  # type: ignore[arg-type]
    await house.store.write(
        Reads(runs=[run.id], open_of=[run.id]), lambda rows, at: Change(result=None, put=[wait])
    )
    return run


async def test_an_operation_needs_somebody_and_a_timer_nobody(house: EngineHouse) -> None:
    assert not await needs_somebody(house, await waiting(house, StepKind.TIMER))
    run = await waiting(house, StepKind.OPERATION, operation_id="op_1")
    assert await needs_somebody(house, run)
    assert not await needs_somebody(house, run, after=1)
    began = NewEvent(run.id, OperationStarted(operation_id="op_1", name="scan"), "s")
    await house.store.write(
        Reads(runs=[run.id]), lambda rows, at: Change(result=None, events=[began])
    )
    assert await needs_somebody(house, run, after=1)
    assert not await needs_somebody(house, run, after=2)


async def test_a_held_run_needs_somebody(house: EngineHouse) -> None:
    run = await house.start()
    assert not await needs_somebody(house, run)
    await Pauses(house.store).pause(ADA, run.id)
    assert await needs_somebody(house, run)
    assert await needs_somebody(house, run, after=1)
    assert not await needs_somebody(house, run, after=2)


async def test_a_list_claims_nothing_that_came_while_it_read(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await house.start()
    real = house.store.events

    async def slow(*args: Any, **kwargs: Any) -> Any:
        found = await real(*args, **kwargs)
        monkeypatch.undo()
        await append(house.store, run.id)
        for _ in range(100):
            await asyncio.sleep(0)
        return found

    monkeypatch.setattr(house.store, "events", slow)
    page = await house.watches.list(ADA, run.id, Position(after=1), limit=9, wait_seconds=0)
    assert (numbers(page.frame), page.complete_through) == ([], 1)


async def test_a_watch_opened_right_after_the_start_reads_no_log(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await house.start()

    async def unread(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the log was read")

    monkeypatch.setattr(house.store, "events", unread)
    monkeypatch.setattr(house.store, "frames", unread)
    pages = house.watches.watch(ADA, run.id, Position())
    async with aclosing(pages):
        assert (await anext(pages)).frame == b""
        assert sequences([await anext(pages)]) == [1]
