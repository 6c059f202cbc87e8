"""Any interleaving of writes and reads of logs, against a plain list for each run."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.memory import MemoryStore
from onbelay_server.adapters.sql import SqlStore, migrate
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import FailedPrecondition
from onbelay_server.domain.event import LogWritten
from onbelay_server.ports.store import Store
from tests.contract.entities import append, line, make_run, start
from tests.manual_clock import ManualClock

T = TypeVar("T")
RUNS = ("r1", "r2", "r3")


class LogMachine(RuleBasedStateMachine):
    """Model: each run's log is the list of messages appended to it, its sequences 1, 2, 3 …"""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.codec = ProtoEventCodec()
        self.logs: dict[str, list[str]] = {}
        self.store = self.run(self.opened())

    async def opened(self) -> Store:
        return MemoryStore(codec=self.codec, clock=self.clock)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.run(start(self.store, *(make_run(run_id) for run_id in RUNS)))
        self.logs = {run_id: ["started"] for run_id in RUNS}

    @rule(units=st.lists(st.tuples(st.sampled_from(RUNS), st.integers(0, 4)), max_size=12))
    def write(self, units: list[tuple[str, int]]) -> None:
        async def together() -> None:
            await asyncio.gather(
                *(append(self.store, run_id, f"m{at}", count)
                  for at, (run_id, count) in enumerate(units))
            )  # fmt: skip

        self.run(together())
        for at, (run_id, count) in enumerate(units):
            self.logs[run_id] += [f"m{at}"] * count

    @rule(run_id=st.sampled_from(RUNS))
    def refuse(self, run_id: str) -> None:
        def decide(_rows: Rows, _now_us: int) -> Change[None]:
            raise FailedPrecondition("no")

        async def between() -> list[object]:
            return await asyncio.gather(
                append(self.store, run_id, "before"),
                self.store.write(Reads(runs=[run_id]), decide),
                append(self.store, run_id, "after"),
                return_exceptions=True,
            )

        outcomes = self.run(between())
        assert isinstance(outcomes[1], FailedPrecondition)
        self.logs[run_id] += ["before", "after"]

    @rule(run_id=st.sampled_from(RUNS))
    def across(self, run_id: str) -> None:
        def decide(_rows: Rows, _now_us: int) -> Change[None]:
            return Change(result=None, events=[line(other, "both") for other in (run_id, "r1")])

        self.run(self.store.write(Reads(runs=[run_id, "r1"]), decide))
        self.logs[run_id].append("both")
        self.logs["r1"].append("both")

    @rule(seconds=st.sampled_from([-3_600, -1, 0, 1, 3_600]))
    def step_clock(self, seconds: int) -> None:
        self.clock.step(seconds)

    @rule(
        run_id=st.sampled_from(RUNS),
        after=st.integers(0, 30),
        limit=st.integers(1, 30),
        through=st.none() | st.integers(0, 30),
    )
    def read(self, run_id: str, after: int, limit: int, through: int | None) -> None:
        found = self.run(
            self.store.events(run_id, after=after, limit=limit, max_bytes=10**6, through=through)
        )
        log = list(enumerate(self.logs[run_id], 1))
        expected = [entry for entry in log if after < entry[0] <= (through or 10**6)]
        if through == 0:
            expected = []
        assert [event.sequence for event in found] == [entry[0] for entry in expected][:limit]

    @rule(run_id=st.sampled_from(RUNS), max_bytes=st.integers(1, 300))
    def read_bounded(self, run_id: str, max_bytes: int) -> None:
        sequences: list[int] = []
        while page := self.run(
            self.store.events(
                run_id, after=len(sequences), limit=100, max_bytes=max_bytes
            )
        ):  # fmt: skip
            assert sum(len(event.body) for event in page[:-1]) < max_bytes
            sequences += [event.sequence for event in page]
        assert sequences == list(range(1, len(self.logs[run_id]) + 1))

    @invariant()
    def logs_are_what_was_written(self) -> None:
        for run_id, expected in self.logs.items():
            found = self.run(self.store.events(run_id, after=0, limit=10**6, max_bytes=10**9))
            recorded = [self.codec.decode(event.body) for event in found]
            assert [one.sequence for one in recorded] == list(range(1, len(expected) + 1))
            payloads = [one.payload for one in recorded]
            assert [p.message for p in payloads if isinstance(p, LogWritten)] == expected
            times = [one.time_us for one in recorded]
            assert times == sorted(times)
            run = self.run(self.store.run(run_id))
            assert run is not None
            assert run.last_sequence == len(expected)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


class SqliteLogMachine(LogMachine):
    """The same over a file, which may be closed and opened again at any point."""

    async def opened(self) -> Store:
        if not hasattr(self, "folder"):
            self.folder = tempfile.mkdtemp()
            await migrate(self.url)
        return await SqlStore.open(self.url, codec=self.codec, clock=self.clock)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/log.db"

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.opened())

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


TestMemoryLog = LogMachine.TestCase
TestMemoryLog.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestSqliteLog = SqliteLogMachine.TestCase
TestSqliteLog.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
