"""The writer on a database that only takes note: batching, isolation, hooks, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql.batch import Batch
from onbelay_server.adapters.sql.database import Statement, Steps
from onbelay_server.adapters.sql.kept import Kept
from onbelay_server.adapters.sql.rows import Row
from onbelay_server.adapters.sql.sqlite import SqliteSql
from onbelay_server.adapters.sql.statements import Statements
from onbelay_server.adapters.sql.writer import MOST_UNITS, Writer
from onbelay_server.adapters.unit import Unit
from onbelay_server.adapters.working_set import Conflict
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.error import Aborted, Unavailable
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.ports.store import Appended
from tests.contract.entities import line, make_run
from tests.manual_clock import ManualClock

T = TypeVar("T")


class NotingDatabase:
    """Empty tables; each transaction's statements are kept. A statement for which `fail` returns an
    exception raises it."""

    is_exclusive = True

    def __init__(self) -> None:
        self.sql = SqliteSql()
        self.transactions: list[list[Statement]] = []
        self.fail: Callable[[Statement], Exception | None] = lambda _statement: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def transact(self, make: Callable[[], Steps[T]]) -> T:
        await self.gate.wait()
        done: list[Statement] = []
        steps = make()
        try:
            statement = next(steps)
            while True:
                if error := self.fail(statement):
                    raise error
                done.append(statement)
                rows: list[Row] = []
                statement = steps.send(rows)
        except StopIteration as stop:
            self.transactions.append(done)
            result: T = stop.value
            return result

    async def fetch(self, statement: Statement, *, max_bytes: int | None = None) -> list[Row]:
        raise NotImplementedError

    async def check(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@pytest.fixture
def database() -> NotingDatabase:
    return NotingDatabase()


@pytest.fixture
async def writer(database: NotingDatabase) -> Writer:
    statements = Statements(database.sql)
    kept = Kept(is_exclusive=True)
    return Writer(database, Batch(statements, ProtoEventCodec(), ManualClock(), kept))


def starting(run_id: str) -> Unit[str]:
    run = make_run(run_id)
    return Unit(
        Reads(runs=[run_id]),
        lambda _rows, _now_us: Change(result=run_id, put=[run], events=[line(run_id)]),
    )


def asking(request_id: str) -> Unit[None]:
    key = RequestKey("acme", "user:ada", "StartRun", request_id)
    row = Request(key=key, body_sha256="b", result_id="r", create_us=1)
    return Unit(Reads(), lambda _rows, _now_us: Change(result=None, put=[row]))


def mentions(word: str, error: Exception) -> Callable[[Statement], Exception | None]:
    def fail(statement: Statement) -> Exception | None:
        found = statement.sql.startswith("INSERT") and word in statement.params
        return error if found else None

    return fail


async def test_what_is_queued_goes_into_one_transaction(
    writer: Writer, database: NotingDatabase
) -> None:
    committed = await asyncio.gather(*(writer.write(starting(f"r{n}")) for n in range(64)))

    assert [one.result for one in committed] == [f"r{n}" for n in range(64)]
    (transaction,) = database.transactions
    # One read, then one statement a table: runs, their inputs, their events.
    assert [statement.sql.split()[:3] for statement in transaction[1:]] == [
        ["INSERT", "INTO", "runs"],
        ["INSERT", "INTO", "run_inputs"],
        ["INSERT", "INTO", "run_events"],
    ]
    await writer.close()


async def test_a_flood_is_cut_into_transactions_in_order(
    writer: Writer, database: NotingDatabase
) -> None:
    heard: list[str] = []
    writer.on_commit(lambda appended: heard.extend(one.run.id for one in appended))
    units = [starting(f"r{n:04}") for n in range(MOST_UNITS + 10)]

    await asyncio.gather(*(writer.write(unit) for unit in units))

    assert len(database.transactions) == 2
    assert heard == [f"r{n:04}" for n in range(MOST_UNITS + 10)]
    await writer.close()


async def test_what_comes_during_a_transaction_goes_into_the_next(
    writer: Writer, database: NotingDatabase
) -> None:
    database.gate.clear()
    first = asyncio.create_task(writer.write(starting("r0")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(writer.write(starting(f"r{n}"))) for n in range(1, 9)]
    await asyncio.sleep(0)
    database.gate.set()
    await asyncio.gather(first, *others)
    assert len(database.transactions) == 2
    await writer.close()


async def test_a_failing_statement_fails_only_its_own_unit(
    writer: Writer, database: NotingDatabase
) -> None:
    database.fail = mentions("r3", ValueError("no such value"))
    heard: list[str] = []
    writer.on_commit(lambda appended: heard.extend(one.run.id for one in appended))

    outcomes = await asyncio.gather(
        *(writer.write(starting(f"r{n}")) for n in range(5)), return_exceptions=True
    )

    assert [type(one) is ValueError for one in outcomes] == [False, False, False, True, False]
    assert heard == ["r0", "r1", "r2", "r4"]
    assert len(database.transactions) == 4
    await writer.close()


async def test_a_conflict_is_tried_again_then_given_up(
    writer: Writer, database: NotingDatabase
) -> None:
    tries = 0

    def fail(statement: Statement) -> Exception | None:
        nonlocal tries
        if "q1" in statement.params:
            tries += 1
            return Conflict("taken") if tries < 3 else None
        return Conflict("taken") if "q2" in statement.params else None

    database.fail = fail
    outcomes = await asyncio.gather(
        writer.write(asking("q1")), writer.write(asking("q2")), return_exceptions=True
    )

    assert not isinstance(outcomes[0], BaseException)
    assert isinstance(outcomes[1], Aborted)
    await writer.close()


async def test_a_database_that_is_away_is_not_asked_again(
    writer: Writer, database: NotingDatabase
) -> None:
    asked = 0

    def fail(_statement: Statement) -> Exception | None:
        nonlocal asked
        asked += 1
        return Unavailable("away")

    database.fail = fail
    outcomes = await asyncio.gather(
        *(writer.write(starting(f"r{n}")) for n in range(5)), return_exceptions=True
    )
    assert [type(one) for one in outcomes] == [Unavailable] * 5
    assert asked == 1
    database.fail = lambda _statement: None
    await writer.write(starting("r9"))
    await writer.close()


async def test_a_hook_that_raises_ends_the_writer_and_hangs_nobody(writer: Writer) -> None:
    def hear(_appended: Sequence[Appended]) -> None:
        raise RuntimeError("a bug")

    writer.on_commit(hear)
    # What is durable is answered all the same.
    assert (await writer.write(starting("r1"))).result == "r1"
    with pytest.raises(Unavailable):
        await writer.write(starting("r2"))
    with pytest.raises(RuntimeError, match="a bug"):
        await writer.close()


async def test_a_job_keeps_its_place(writer: Writer, database: NotingDatabase) -> None:
    def steps() -> Steps[str]:
        yield Statement("SELECT 'job'")
        return "job"

    done: list[Any] = []
    outcomes = await asyncio.gather(
        writer.write(starting("r1")), writer.run(steps, done.append), writer.write(starting("r2"))
    )
    assert outcomes[1] == "job"
    assert done == ["job"]
    assert [transaction[0].sql[:12] for transaction in database.transactions] == [
        "SELECT runs.",
        "SELECT 'job'",
        "SELECT runs.",
    ]
    await writer.close()
