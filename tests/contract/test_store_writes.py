from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.working_set import NotNamed
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import (
    Change,
    EncodedEvents,
    Entity,
    NewEvent,
    Reads,
    Rows,
)
from onbelay_server.domain.error import Aborted, FailedPrecondition, Unavailable
from onbelay_server.domain.event import LogWritten
from onbelay_server.domain.request import RequestKey
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import (
    LogLevel,
)
from onbelay_server.ports.store import Appended, Store
from tests.contract.entities import (
    append,
    appending,
    line,
    make_agent,
    make_approval,
    make_artifact,
    make_request,
    make_run,
    make_wait,
    put,
    start,
    whole_log,
)
from tests.manual_clock import ManualClock


async def test_rows_and_events_of_a_change_appear_together(store: Store) -> None:
    run = make_run("r1")
    wait, approval = make_wait("r1", "s1"), make_approval("a1", run)

    committed = await store.write(
        Reads(runs=["r1"]),
        lambda _rows, _now_us: Change(
            result="done", put=[run, wait, approval], events=[line("r1"), line("r1", "again")]
        ),
    )

    assert committed.result == "done"
    after = committed.runs["r1"]
    assert [event.sequence for event in after.events] == [1, 2]
    assert after.run.last_sequence == 2
    assert await store.run("r1") == after.run
    assert await store.waits(["r1"]) == {"r1": [wait]}
    assert await store.approval("a1") == approval
    assert await store.events("r1", after=0, limit=10, max_bytes=10_000) == list(after.events)


async def test_a_refused_decision_leaves_nothing(store: Store) -> None:
    await start(store, make_run("r1"))

    def refuse(rows: Rows, _now_us: int) -> Change[None]:
        assert rows.run("r1") is not None
        raise FailedPrecondition("no")

    with pytest.raises(FailedPrecondition, match="no"):
        await store.write(Reads(runs=["r1"]), refuse)

    assert await whole_log(store, "r1") == [1]


async def test_a_decision_that_fails_is_raised_to_its_caller_only(store: Store) -> None:
    await start(store, make_run("r1"))

    def fail(_rows: Rows, _now_us: int) -> Change[None]:
        raise ZeroDivisionError

    outcomes = await asyncio.gather(
        append(store, "r1"),
        store.write(Reads(runs=["r1"]), fail),
        append(store, "r1"),
        return_exceptions=True,
    )

    assert isinstance(outcomes[1], ZeroDivisionError)
    assert await whole_log(store, "r1") == [1, 2, 3]


async def test_sequences_are_dense_under_many_writers(store: Store) -> None:
    await start(store, *(make_run(f"r{number}") for number in range(5)))

    await asyncio.gather(*(append(store, f"r{n % 5}", f"{n}", 1 + n % 3) for n in range(200)))

    for number in range(5):
        log = await whole_log(store, f"r{number}")
        run = await store.run(f"r{number}")
        assert run is not None
        assert log == list(range(1, run.last_sequence + 1))
    assert sum([len(await whole_log(store, f"r{n}")) for n in range(5)]) == 5 + sum(
        1 + n % 3 for n in range(200)
    )


async def test_a_later_unit_sees_what_earlier_ones_did(store: Store) -> None:
    await start(store, make_run("r1"))

    def count(rows: Rows, _now_us: int) -> Change[int]:
        run = rows.run("r1")
        assert run is not None
        return Change(result=run.attempt, put=[replace(run, attempt=run.attempt + 1)])

    committed = await asyncio.gather(*(store.write(Reads(runs=["r1"]), count) for _ in range(50)))

    assert [one.result for one in committed] == list(range(50))


async def test_the_same_request_a_hundred_times_makes_one_run(store: Store) -> None:
    key = RequestKey("acme", "user:ada", "StartRun", "q1")

    async def begin(number: int) -> str:
        run_id = f"r{number:03}"

        def decide(rows: Rows, _now_us: int) -> Change[str]:
            known = rows.request(key)
            if known is not None:
                return Change(result=known.match("b" * 64))
            return Change(
                result=run_id,
                put=[make_run(run_id), make_request("q1", run_id)],
                events=[line(run_id)],
            )

        return (await store.write(Reads(runs=[run_id], requests=[key]), decide)).result

    answers = await asyncio.gather(*(begin(number) for number in range(100)))

    assert len(set(answers)) == 1
    started = [number for number in range(100) if await store.run(f"r{number:03}") is not None]
    assert [f"r{number:03}" for number in started] == [answers[0]]


async def test_a_key_that_is_taken_unseen_is_refused(store: Store) -> None:
    await put(store, make_agent("agt_1", "greeter"))

    with pytest.raises(Aborted):
        await put(store, make_agent("agt_2", "greeter"))
    await put(store, make_agent("agt_3", "greeter", tenant="other"))

    assert await store.agent("agt_2") is None
    assert await store.agent("agt_3") is not None


async def test_a_cancelled_caller_does_not_cancel_its_unit(store: Store) -> None:
    await start(store, make_run("r1"))
    reads, decide = appending("r1")

    callers = [asyncio.create_task(store.write(reads, decide)) for _ in range(20)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await append(store, "r1")

    assert await whole_log(store, "r1") == list(range(1, 23))


async def test_what_is_not_named_is_not_read(store: Store) -> None:
    await start(store, make_run("r1"), make_run("r2"))
    run = await store.run("r2")
    assert run is not None
    await put(store, make_wait("r2", "s1"), make_approval("a1", run), make_artifact("f1", "r2"))
    key = RequestKey("acme", "user:ada", "StartRun", "q1")
    for look in (
        lambda rows: rows.run("r2"),
        lambda rows: rows.tree("r2"),
        lambda rows: rows.waits("r2"),
        lambda rows: rows.pending_approvals("r2"),
        lambda rows: rows.open_operations("r2"),
        lambda rows: rows.unread("r2"),
        lambda rows: rows.operation("o1"),
        lambda rows: rows.approval("a1"),
        lambda rows: rows.artifact("f1"),
        lambda rows: rows.artifacts_of("r2"),
        lambda rows: rows.agent("agt_1"),
        lambda rows: rows.agent_named("acme", "greeter"),
        lambda rows: rows.revision("agt_1", 1),
        lambda rows: rows.request(key),
    ):

        def decide(rows: Rows, _now_us: int, look: object = look) -> Change[None]:
            assert callable(look)
            look(rows)
            return Change(result=None)

        with pytest.raises(NotNamed):
            await store.write(Reads(runs=["r1"]), decide)


async def test_set_reads_see_rows_changed_earlier(store: Store) -> None:
    root = make_run("root")
    await start(store, root)

    def grow(number: int) -> object:
        child = make_run(f"c{number}", root_id="root", parent_id="root", depth=1)
        rows: list[Entity] = [
            child,
            make_wait(child.id, "s1"),
            make_approval(f"a{number}", child),
            make_artifact(f"f{number}", "root"),
        ]
        return store.write(
            Reads(runs=["root"]),
            lambda _r, _n: Change(result=None, put=rows, events=[line(child.id)]),
        )

    def look(
        rows: Rows, _now_us: int
    ) -> Change[tuple[list[Run], list[Wait], list[Approval], list[Artifact]]]:
        tree = rows.tree("root")
        waits = [wait for run in tree for wait in rows.waits(run.id)]
        pending = [one for run in tree for one in rows.pending_approvals(run.id)]
        return Change(result=(tree, waits, pending, rows.artifacts_of("root")))

    reads = Reads(trees=["root"], artifacts_of=["root"])
    _, seen, _, both = await asyncio.gather(
        grow(1), store.write(reads, look), grow(2), store.write(reads, look)
    )

    assert [run.id for run in seen.result[0]] == ["root", "c1"]
    assert [run.id for run in both.result[0]] == ["root", "c1", "c2"]
    assert [wait.run_id for wait in both.result[1]] == ["c1", "c2"]
    assert [one.id for one in both.result[2]] == ["a1", "a2"]
    assert [one.id for one in both.result[3]] == ["f1", "f2"]
    assert (await store.write(reads, look)).result == both.result


async def test_events_carry_the_epoch_after_the_change(
    store: Store, codec: ProtoEventCodec
) -> None:
    await start(store, make_run("r1"))

    def claim(rows: Rows, _now_us: int) -> Change[None]:
        run = rows.run("r1")
        assert run is not None
        body = codec.encode("r1", "s1", LogWritten(level=LogLevel.INFO, message="encoded"))
        kind = codec.number(LogWritten)
        claimed = replace(run, epoch=7, last_sequence=99)
        return Change(result=None, put=[claimed], events=[EncodedEvents("r1", [kind], [body])])

    committed = await store.write(Reads(runs=["r1"]), claim)

    event = committed.runs["r1"].events[0]
    recorded = codec.decode(event.body)
    assert (recorded.sequence, recorded.epoch, recorded.step_id) == (2, 7, "s1")
    assert recorded.time_us == committed.now_us
    assert committed.runs["r1"].run.last_sequence == 2


async def test_many_encoded_events_keep_their_order_among_others(
    store: Store, codec: ProtoEventCodec
) -> None:
    await start(store, make_run("r1"), make_run("r2"))
    kind = codec.number(LogWritten)

    def encoded(run_id: str, *messages: str) -> EncodedEvents:
        logs = [LogWritten(level=LogLevel.INFO, message=message) for message in messages]
        bodies = [codec.encode(run_id, "", log) for log in logs]
        return EncodedEvents(run_id, [kind] * len(bodies), bodies)

    change = Change(
        result=None,
        events=[line("r1", "a"), encoded("r1", "b", "c"), encoded("r2", "x"), line("r1", "d")],
    )
    committed = await store.write(Reads(runs=["r1", "r2"]), lambda _rows, _now_us: change)

    page = await store.events("r1", after=1, limit=9, max_bytes=10_000)
    payloads = [codec.decode(event.body).payload for event in page]
    assert [one.message for one in payloads if isinstance(one, LogWritten)] == ["a", "b", "c", "d"]
    assert [event.sequence for event in page] == [2, 3, 4, 5]
    assert tuple(page) == committed.runs["r1"].events
    assert len(committed.runs["r2"].events) == 1


async def test_kinds_without_their_bodies_are_refused(store: Store) -> None:
    await start(store, make_run("r1"))
    change = Change(result=None, events=[EncodedEvents("r1", [1, 1], [b"x"])])
    with pytest.raises(ValueError, match="as many"):
        await store.write(Reads(runs=["r1"]), lambda _rows, _now_us: change)
    assert await whole_log(store, "r1") == [1]


async def test_time_in_a_log_never_falls(
    store: Store, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    await start(store, make_run("r1"))
    clock.advance(10)
    await append(store, "r1")
    clock.step(-3_600)
    await append(store, "r1")

    events = await store.events("r1", after=0, limit=10, max_bytes=10_000)
    times = [codec.decode(event.body).time_us for event in events]
    assert times == sorted(times)
    run = await store.run("r1")
    assert run is not None
    assert run.update_us == times[-1]


async def test_commits_are_heard_in_order_before_callers_go_on(store: Store) -> None:
    heard: list[tuple[str, int]] = []

    def hear(appended: Sequence[Appended]) -> None:
        heard.extend((one.run.id, event.sequence) for one in appended for event in one.events)

    store.on_commit(hear)
    await start(store, make_run("r1"), make_run("r2"))
    assert heard == [("r1", 1), ("r2", 1)]
    await asyncio.gather(append(store, "r1", count=2), append(store, "r2"), append(store, "r1"))
    assert [sequence for run_id, sequence in heard if run_id == "r1"] == [1, 2, 3, 4]


async def test_events_of_an_unknown_run_are_a_bug(store: Store) -> None:
    with pytest.raises(NotNamed):
        await store.write(
            Reads(),
            lambda _r, _n: Change(
                result=None, events=[NewEvent("r9", LogWritten(level=LogLevel.INFO, message=""))]
            ),
        )


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    reads, decide = appending("r1")
    await start(store, make_run("r1"))
    queued = [asyncio.create_task(store.write(reads, decide)) for _ in range(10)]
    await asyncio.sleep(0)
    await store.close()

    assert [list(one.result().runs) for one in queued] == [["r1"]] * 10
    with pytest.raises(Unavailable):
        await append(store, "r1")
