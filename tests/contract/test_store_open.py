"""What a run has begun outside and what was said to it: operations and unread messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from onbelay_server.domain.change import Change, Decide, Entity, Reads, Rows
from onbelay_server.domain.effect import StepError
from onbelay_server.domain.error import Aborted
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation, OperationState
from onbelay_server.domain.principal import Viewer
from onbelay_server.ports.store import OperationFilter, Place, Store
from tests.contract.entities import (
    ADA,
    ADMIN,
    FOREIGN_ADMIN,
    STRANGER,
    T0,
    append,
    line,
    make_message,
    make_operation,
    make_run,
    put,
    start,
)

OWNER = Viewer(tenant="acme", principal="user:owner", is_admin=False)
ANY = OperationFilter()


async def open_of(store: Store, run_id: str) -> tuple[list[Operation], list[Message]]:
    def look(rows: Rows, _now_us: int) -> Change[tuple[list[Operation], list[Message]]]:
        return Change(result=(rows.open_operations(run_id), rows.unread(run_id)))

    return (await store.write(Reads(open_of=[run_id]), look)).result


def completing(operation_id: str, result_json: str) -> tuple[Reads, Decide[str | None]]:
    """What gives an open operation its result, and answers with the one that it has then."""

    def decide(rows: Rows, now_us: int) -> Change[str | None]:
        operation = rows.operation(operation_id)
        assert operation is not None
        if operation.state is not OperationState.OPEN:
            return Change(result=operation.result_json)
        after = replace(
            operation,
            state=OperationState.SUCCEEDED,
            result_json=result_json,
            complete_us=now_us,
            completed_by="user:bob",
        )
        return Change(result=result_json, put=[after])

    return Reads(operations=[operation_id]), decide


async def test_every_field_of_an_operation_comes_back(store: Store) -> None:
    run = make_run("r1", root_id="r0", parent_id="r0", depth=1)
    await start(store, run)
    plain = make_operation("o1", run)
    full = make_operation(
        "o2",
        run,
        result_schema_json='{"type":"object"}',
        state=OperationState.FAILED,
        error=StepError(type="ToolFailed", message="kaputt", reason="NO", data_json='{"ü":1}'),
        result_json='{"a":[1,null]}',
        expire_us=T0 + 5,
        complete_us=T0 + 6,
        completed_by="user:bob",
    )
    await put(store, plain, full)

    assert await store.operation("o1") == plain
    assert await store.operation("o2") == full
    assert await store.operation("o3") is None


async def test_only_open_operations_are_open(store: Store) -> None:
    run = make_run("r1")
    await start(store, run, make_run("r2"))
    first = make_operation("o1", run, create_us=T0 + 2)
    second = make_operation("o2", run, create_us=T0 + 1)
    closed = [
        make_operation(f"x_{state}", run, state=state)
        for state in OperationState
        if state is not OperationState.OPEN
    ]
    await put(store, first, second, *closed)

    assert (await open_of(store, "r1"))[0] == [second, first]
    assert (await open_of(store, "r2"))[0] == []

    reads, decide = completing("o2", "7")
    await store.write(reads, decide)
    assert (await open_of(store, "r1"))[0] == [first]


async def test_an_operation_is_completed_once(store: Store) -> None:
    run = make_run("r1")
    await start(store, run)
    await put(store, make_operation("o1", run))

    orders = [completing("o1", str(number)) for number in range(50)]
    done = await asyncio.gather(*(store.write(reads, decide) for reads, decide in orders))

    kept = await store.operation("o1")
    assert kept is not None
    assert {one.result for one in done} == {kept.result_json}
    assert kept.completed_by == "user:bob"
    assert kept.complete_us is not None


async def test_an_intent_recorded_anew_takes_the_place_of_the_first(store: Store) -> None:
    run = make_run("r1")
    await start(store, run)
    first = make_operation("o1", run, expire_us=T0 + 1)
    again = replace(first, expire_us=T0 + 9)
    await put(store, first)

    # Once without having read it, and once more in one transaction with it.
    await put(store, again)
    assert await store.operation("o1") == again
    fresh = make_operation("o2", run)
    await asyncio.gather(put(store, fresh), put(store, replace(fresh, expire_us=T0 + 3)))
    assert await store.operation("o2") == replace(fresh, expire_us=T0 + 3)
    assert [one.id for one in (await open_of(store, "r1"))[0]] == ["o1", "o2"]


async def test_who_sees_which_operations(store: Store) -> None:
    mine, bobs = make_run("mine"), make_run("bobs", starter="user:bob")
    foreign = make_run("foreign", tenant="other")
    await start(store, mine, bobs, foreign)
    await put(
        store,
        make_operation("o1", mine, create_us=T0 + 1),
        make_operation("o2", bobs, create_us=T0 + 2),
        make_operation("o3", foreign, create_us=T0 + 3),
        make_operation("o4", mine, create_us=T0 + 4, state=OperationState.EXPIRED),
        make_operation("o5", mine, create_us=T0 + 4, state=OperationState.VOIDED),
    )

    async def seen(viewer: Viewer, which: OperationFilter = ANY) -> list[str]:
        found = await store.list_operations(viewer, which, after=None, limit=10)
        return [operation.id for operation in found]

    assert await seen(ADA) == ["o5", "o4", "o1"]
    assert await seen(ADMIN) == ["o5", "o4", "o2", "o1"]
    assert await seen(OWNER) == ["o5", "o4", "o2", "o1"]
    assert await seen(STRANGER) == []
    assert await seen(FOREIGN_ADMIN) == ["o3"]
    assert await seen(ADMIN, OperationFilter(run_id="mine")) == ["o5", "o4", "o1"]
    assert await seen(ADA, OperationFilter(run_id="bobs")) == []
    states = [OperationState.EXPIRED, OperationState.OPEN]
    assert await seen(ADA, OperationFilter(states=states)) == ["o4", "o1"]
    assert await seen(ADMIN, OperationFilter(run_id="bobs", states=states)) == ["o2"]


async def test_pages_of_operations_are_complete_and_newest_first(store: Store) -> None:
    run = make_run("r1")
    await start(store, run)
    rows = [make_operation(f"o{n:03}", run, create_us=T0 + n // 3) for n in range(50)]
    await put(store, *rows)

    seen: list[str] = []
    after: Place | None = None
    while page := await store.list_operations(ADA, ANY, after=after, limit=7):
        assert len(page) <= 7
        seen += [operation.id for operation in page]
        after = Place(page[-1].create_us, page[-1].id)

    assert seen == [row.id for row in reversed(rows)]


async def test_messages_are_unread_until_they_are_taken(store: Store) -> None:
    await start(store, make_run("r1"), make_run("r2"))
    await put(store, make_message("r1", 2), make_message("r2", 1), make_message("r1", 10))
    await put(store, make_message("r1", 1))
    assert [one.number for one in (await open_of(store, "r1"))[1]] == [1, 2, 10]

    def take(rows: Rows, _now_us: int) -> Change[Sequence[int]]:
        taken = rows.unread("r1")[:2]
        return Change(result=[one.number for one in taken], delete=taken, events=[line("r1")])

    reads = Reads(runs=["r1"], open_of=["r1"])
    # The second must not be given what the first has taken, though both are in one transaction.
    first, second, third = await asyncio.gather(*(store.write(reads, take) for _ in range(3)))

    assert (first.result, second.result, third.result) == ([1, 2], [10], [])
    assert (await open_of(store, "r1"))[1] == []
    assert (await open_of(store, "r2"))[1] == [make_message("r2", 1)]


async def test_messages_sent_at_once_are_numbered_without_gaps(store: Store) -> None:
    await start(store, make_run("r1"))

    def send(rows: Rows, _now_us: int) -> Change[int]:
        run = rows.run("r1")
        assert run is not None
        message = make_message("r1", run.message_count + 1)
        after = replace(run, message_count=message.number)
        return Change(result=message.number, put=[after, message], events=[line("r1")])

    sent = await asyncio.gather(*(store.write(Reads(runs=["r1"]), send) for _ in range(60)))

    assert [one.result for one in sent] == list(range(1, 61))
    run = await store.run("r1")
    assert run is not None
    assert run.message_count == 60
    assert [one.number for one in (await open_of(store, "r1"))[1]] == list(range(1, 61))


async def test_a_message_id_is_taken_once(store: Store) -> None:
    await start(store, make_run("r1"))
    await put(store, make_message("r1", 1))

    with pytest.raises(Aborted):
        await put(store, make_message("r1", 1))

    assert (await open_of(store, "r1"))[1] == [make_message("r1", 1)]


async def test_a_message_taken_in_the_transaction_that_brought_it_is_gone(store: Store) -> None:
    await start(store, make_run("r1"))

    def take(rows: Rows, _now_us: int) -> Change[int]:
        unread = rows.unread("r1")
        return Change(result=len(unread), delete=unread)

    _, taken = await asyncio.gather(
        put(store, make_message("r1", 1)), store.write(Reads(open_of=["r1"]), take)
    )

    assert taken.result == 1
    assert (await open_of(store, "r1"))[1] == []


async def test_a_tree_shows_what_is_open_in_it(store: Store) -> None:
    root = make_run("root")
    await start(store, root)

    def look(rows: Rows, _now_us: int) -> Change[tuple[list[str], list[int]]]:
        tree = rows.tree("root")
        opened = [one.id for run in tree for one in rows.open_operations(run.id)]
        return Change(result=(opened, [one.number for run in tree for one in rows.unread(run.id)]))

    def grow(number: int) -> object:
        child = make_run(f"c{number}", root_id="root", parent_id="root", depth=1)
        rows: list[Entity] = [
            child,
            make_operation(f"o{number}", child),
            make_message(child.id, number),
        ]
        return store.write(
            Reads(runs=["root"]),
            lambda _r, _n: Change(result=None, put=rows, events=[line(child.id)]),
        )

    reads = Reads(trees=["root"])
    await put(store, make_operation("o0", root), make_message("root", 9))
    _, seen, _, both = await asyncio.gather(
        grow(1), store.write(reads, look), grow(2), store.write(reads, look)
    )

    assert seen.result == (["o0", "o1"], [9, 1])
    assert both.result == (["o0", "o1", "o2"], [9, 1, 2])
    assert (await store.write(reads, look)).result == both.result


async def test_deleting_a_run_takes_what_is_open_of_it(store: Store) -> None:
    run, other = make_run("r1"), make_run("r2")
    await start(store, run, other)
    kept, said = make_operation("o2", other), make_message("r2", 1)
    await put(store, make_operation("o1", run), make_message("r1", 1), kept, said)

    def delete(rows: Rows, _now_us: int) -> Change[None]:
        found = rows.run("r1")
        assert found is not None
        return Change(result=None, delete=[found])

    # Those of the same transaction go as well.
    await asyncio.gather(
        append(store, "r1"),
        put(store, make_operation("o3", run), make_message("r1", 2)),
        store.write(Reads(runs=["r1"]), delete),
    )

    assert await store.operation("o1") is None
    assert await store.operation("o3") is None
    assert await open_of(store, "r1") == ([], [])
    assert await open_of(store, "r2") == ([kept], [said])
    found = await store.list_operations(ADMIN, ANY, after=None, limit=9)
    assert found == [kept]
