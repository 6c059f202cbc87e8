"""The shared end of a log: what it holds, the pages it makes, and who reads what it lacks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.app.watching.tail import MAX_TAIL_EVENTS, Tail, Tails
from onbelay_server.ports.store import Appended, StoredEvent
from tests.contract.entities import append, make_run
from tests.engine_house import EngineHouse, entries


@pytest.fixture
async def house() -> EngineHouse:
    house = EngineHouse()
    await house.prepare()
    return house


CODEC = ProtoEventCodec()


def numbers(frame: bytes) -> list[int]:
    return [CODEC.decode(body).sequence for body in entries(frame)]


def events(first: int, last: int, size: int = 10) -> tuple[StoredEvent, ...]:
    return tuple(StoredEvent(number, 1, b"x" * size) for number in range(first, last + 1))


def appended(first: int, last: int) -> Appended:
    return Appended(make_run("r", last_sequence=last), events(first, last))


def test_a_tail_answers_only_for_what_it_holds() -> None:
    tail = Tail(make_run("r", last_sequence=5), CODEC)
    assert tail.after(5, limit=9, max_bytes=99) == ()
    assert tail.after(4, limit=9, max_bytes=99) is None
    tail.append(appended(6, 9))
    assert tail.after(4, limit=9, max_bytes=99) is None
    assert [one.sequence for one in tail.after(5, limit=2, max_bytes=99) or ()] == [6, 7]
    assert [one.sequence for one in tail.after(7, limit=9, max_bytes=99) or ()] == [8, 9]
    assert [one.sequence for one in tail.after(5, limit=9, max_bytes=15) or ()] == [6]


def test_a_gap_empties_a_tail_and_old_news_are_ignored() -> None:
    tail = Tail(make_run("r", last_sequence=0), CODEC)
    tail.append(appended(1, 3))
    tail.append(appended(6, 7))
    assert tail.after(3, limit=9, max_bytes=99) is None
    assert [one.sequence for one in tail.after(5, limit=9, max_bytes=99) or ()] == [6, 7]
    tail.append(appended(2, 3))
    assert tail.last_sequence == 7


def test_a_tail_keeps_the_newest_when_it_is_full() -> None:
    tail = Tail(make_run("r", last_sequence=0), CODEC)
    tail.append(appended(1, MAX_TAIL_EVENTS + 1))
    assert tail.after(0, limit=9, max_bytes=99) is None
    last = tail.after(MAX_TAIL_EVENTS, limit=9, max_bytes=99)
    assert [one.sequence for one in last or ()] == [MAX_TAIL_EVENTS + 1]


def test_a_page_that_was_empty_is_asked_for_again() -> None:
    tail = Tail(make_run("r", last_sequence=0), CODEC)
    assert tail.page(0).frame == b""  # type: ignore[union-attr]
    tail.run = make_run("r", last_sequence=3)
    assert tail.page(0) is None


async def test_a_young_log_with_a_gap_is_read(house: EngineHouse) -> None:
    run = await house.start()
    tails = Tails(house.store, CODEC)
    tails.committed([appended(1, 1), appended(3, 3)])
    tail = await tails.open(run)
    assert tail.after(0, limit=9, max_bytes=99) is None
    tails.close(tail)


async def test_who_is_behind_shares_the_reads(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await house.start()
    await append(house.store, run.id, count=599)
    reads: list[int] = []
    real = house.store.events

    async def counted(run_id: str, **where: Any) -> Any:
        reads.append(where["after"])
        return await real(run_id, **where)

    monkeypatch.setattr(house.store, "events", counted)
    tails = Tails(house.store, CODEC)
    current = await house.store.run(run.id)
    assert current is not None
    tail = await tails.open(current)

    async def read(position: int) -> list[int]:
        got: list[int] = []
        while position < 600:
            page = tail.page(position) or await tail.read(house.store, position)
            assert page is not None
            got += numbers(page.frame)
            position = page.last
        return got

    begins = [0, 0, 3, 100, 127, 128]
    found = await asyncio.gather(*(read(begin) for begin in begins))
    assert found == [list(range(begin + 1, 601)) for begin in begins]
    assert sorted(reads) == [0, 3, 100, 127, 128, 256, 384, 512]
    tails.close(tail)
