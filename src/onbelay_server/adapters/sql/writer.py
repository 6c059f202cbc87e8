"""The single writer of a process: drains what is queued into one transaction, then wakes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from onbelay_server.adapters.sql.batch import Batch, Written, taken
from onbelay_server.adapters.sql.database import Database, Steps
from onbelay_server.adapters.unit import Outcome, Unit
from onbelay_server.adapters.working_set import Conflict
from onbelay_server.domain.error import Unavailable
from onbelay_server.ports.failpoints import pass_by
from onbelay_server.ports.store import Appended, Committed

T = TypeVar("T")
Hear = Callable[[Sequence[Appended]], None]

MOST_UNITS = 512
"""In one transaction, so that the first of them does not wait for the last of a flood."""
TRIES = 3


@dataclass(frozen=True, slots=True)
class _Queued:
    unit: Unit[Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Job:
    """A transaction of its own, in its place in the queue."""

    steps: Callable[[], Steps[Any]]
    done: Callable[[Any], None]
    future: asyncio.Future[Any]


class Writer:
    """Commits units in the order they came.

    It takes all that is queued when it begins, up to a cap, and never waits for more. A caller that
    goes away does not take its unit with it.
    """

    def __init__(self, database: Database, batch: Batch) -> None:
        self._database = database
        self._batch = batch
        self._queue: deque[_Queued | _Job] = deque()
        self._filled = asyncio.Event()
        self.removed = asyncio.Event()
        """Runs went whose logs have yet to go."""
        self._hear: list[Hear] = []
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._work(), name="store writer")

    def on_commit(self, hear: Hear) -> None:
        self._hear.append(hear)

    async def write(self, unit: Unit[T]) -> Committed[T]:
        """Queue a unit and wait for its outcome."""
        future = self._enqueued()
        self._queue.append(_Queued(unit, future))
        self._filled.set()
        committed: Committed[T] = await future
        return committed

    async def run(self, steps: Callable[[], Steps[T]], done: Callable[[T], None]) -> T:
        """Run a transaction of its own in its place in the queue; `done` hears its result before
        the next one begins. Raises Unavailable."""
        future = self._enqueued()
        self._queue.append(_Job(steps, done, future))
        self._filled.set()
        result: T = await future
        return result

    async def close(self) -> None:
        """Commit what is queued, then take no more."""
        self._closing = True
        self._filled.set()
        await self._task

    def _enqueued(self) -> asyncio.Future[Any]:
        if self._closing:
            raise Unavailable("the store is closed", retry_after_seconds=1.0)
        return asyncio.get_running_loop().create_future()

    async def _work(self) -> None:
        try:
            await self._serve()
        finally:
            # Nobody may wait for a writer that is gone, whatever ended it.
            self._closing = True
            for queued in self._queue:
                _settle(queued.future, Unavailable("the store is closed", retry_after_seconds=1.0))
            self._queue.clear()

    async def _serve(self) -> None:
        while True:
            while self._queue:
                first = self._queue[0]
                if isinstance(first, _Job):
                    self._queue.popleft()
                    await self._run_job(first)
                else:
                    await self._commit(self._drained())
            if self._closing:
                return
            self._filled.clear()
            await self._filled.wait()

    def _drained(self) -> list[_Queued]:
        taken_up: list[_Queued] = []
        while self._queue and len(taken_up) < MOST_UNITS:
            queued = self._queue[0]
            if isinstance(queued, _Job):
                break
            taken_up.append(queued)
            self._queue.popleft()
        return taken_up

    async def _run_job(self, job: _Job) -> None:
        try:
            result = await self._database.transact(job.steps)
        except Exception as error:  # noqa: BLE001 - raised to the job's caller
            self._batch.kept.clear()
            _settle(job.future, error)
            return
        job.done(result)
        if not job.future.done():
            job.future.set_result(result)

    async def _commit(self, batch: Sequence[_Queued]) -> None:
        units = [queued.unit for queued in batch]
        try:
            written = await self._database.transact(lambda: self._batch.steps(units))
        except Unavailable as error:
            # A commit may have been under way: what is kept of the rows could be wrong now.
            self._batch.kept.clear()
            self._settle_all(batch, [error] * len(batch))
        except Exception as error:  # noqa: BLE001 - alone, each unit shows whether it is to blame
            await self._commit_alone(batch, error)
        else:
            await pass_by("after_commit_before_wake")
            self._finish(batch, written)

    async def _commit_alone(self, batch: Sequence[_Queued], error: Exception) -> None:
        if len(batch) > 1:
            for queued in batch:
                await self._commit((queued,))
            return
        outcome: Outcome = error
        tries = 1
        while isinstance(outcome, Conflict) and tries < TRIES:
            tries += 1
            try:
                written = await self._database.transact(lambda: self._batch.steps([batch[0].unit]))
            except Exception as again:  # noqa: BLE001 - the unit's outcome
                outcome = again
            else:
                self._finish(batch, written)
                return
        self._settle_all(batch, [taken() if isinstance(outcome, Conflict) else outcome])

    def _finish(self, batch: Sequence[_Queued], written: Written) -> None:
        self._batch.kept.commit(written.rows, written.read)
        if written.rows.changes.removed:
            self.removed.set()
        appended = [
            after
            for outcome in written.outcomes
            if isinstance(outcome, Committed)
            for after in outcome.runs.values()
        ]
        try:
            if appended:
                for hear in self._hear:
                    hear(appended)
        finally:
            self._settle_all(batch, written.outcomes)

    def _settle_all(self, batch: Sequence[_Queued], outcomes: Sequence[Outcome]) -> None:
        for queued, outcome in zip(batch, outcomes, strict=True):
            _settle(queued.future, outcome)


def _settle(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
