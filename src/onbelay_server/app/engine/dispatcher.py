"""Claims queued runs, fairly between tenants, and has each driven."""

from __future__ import annotations

import asyncio
import logging

from onbelay_server.app.engine.casefile import CaseFile
from onbelay_server.app.engine.consequences import LastWord, conclude, reads_of_end
from onbelay_server.app.engine.executor import Executor
from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.error import NotFound, Refusal, Unavailable
from onbelay_server.domain.lifecycle import claimed, ended, fence, worker_lost
from onbelay_server.domain.run import Run, RunError
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.domain.transition import Trigger
from onbelay_server.ports.failpoints import pass_by

log = logging.getLogger(__name__)


class Slot:
    """A place for one run that is being started: with it the run begins claimed by this process."""

    def __init__(self, dispatcher: Dispatcher, owner: str, lease_us: int) -> None:
        self._dispatcher = dispatcher
        self._is_held = True
        self.owner = owner
        self.lease_us = lease_us

    def drive(self, run: Run) -> None:
        """The run is committed, claimed: have it driven here."""
        self.release()
        self._dispatcher.drive(run)

    def release(self) -> None:
        """It is not needed, or no longer. Twice is harmless."""
        if self._is_held:
            self._is_held = False
            self._dispatcher.released()


class Dispatcher:
    """Keeps this process's slots full."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._executors: dict[str, Executor] = {}
        self._ready = asyncio.Event()
        self._is_open = True
        self._reserved = 0
        self._has_backlog = True
        """Whether runs may be waiting that came before any that is started now."""

    # ---- what others see and say -------------------------------------------------------------

    def executor(self, run_id: str) -> Executor | None:
        """Who drives the run here, if anybody does."""
        return self._executors.get(run_id)

    @property
    def executors(self) -> list[Executor]:
        return list(self._executors.values())

    def drives(self, run_id: str) -> bool:
        """Whether something in this process is at work on the run."""
        return run_id in self._driving

    async def let_go(self, run_id: str, epoch: int) -> None:
        """Requeue a run that this process owns and nothing here drives."""
        run = await self._parts.store.run(run_id)
        if run is not None and run.epoch == epoch:
            await self._let_go(run, lambda r, at: worker_lost(r, at, "its worker let it go"))

    def wake(self) -> None:
        """A run may be claimable."""
        self._ready.set()

    def reserve(self) -> Slot | None:
        """A slot for a run about to be started, unless none is free or others come first."""
        if not self._is_open or self._has_backlog or self._ready.is_set() or self._free <= 0:
            return None
        self._reserved += 1
        return Slot(self, self._parts.owner, self._lease_us)

    def released(self) -> None:
        """A reserved slot is not held any more."""
        self._reserved -= 1

    @property
    def _free(self) -> int:
        return self._parts.pace.slots - len(self._driving) - self._reserved

    @property
    def _lease_us(self) -> int:
        return int(self._parts.pace.lease_seconds * 1_000_000)

    async def drain(self) -> None:
        """Claim nothing more and give back what is driven. Returns when nothing is."""
        self._is_open = False
        for executor in self.executors:
            executor.give_back()
        while self._driving:
            await asyncio.wait(list(self._driving.values()))

    async def close(self) -> None:
        """Cancel what is still driven; its leases run out."""
        self._is_open = False
        tasks = list(self._driving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- claiming ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim for as long as the process lives."""
        while True:
            try:
                pause = await self._fill()
            except Unavailable:
                pause = self._parts.pace.poll_seconds
            await _first_of(self._ready, pause)

    async def _fill(self) -> float:
        """Claim what fits; seconds until something may be claimable without a hint."""
        self._has_backlog |= self._ready.is_set()
        self._ready.clear()
        free = self._free
        if not self._is_open or free <= 0:
            self._has_backlog = True
            return self._parts.pace.poll_seconds
        now_us = self._parts.clock.now_us()
        runs = await self._parts.store.claimable(now_us, limit=free)
        claims = await asyncio.gather(*(self._claim(run.id) for run in runs))
        for run in claims:
            if run is not None:
                self.drive(run)
        self._has_backlog = len(runs) == free
        if self._has_backlog:
            return self._parts.pace.poll_seconds
        next_us = await self._parts.store.next_ready_us()
        if next_us is None:
            return self._parts.pace.poll_seconds
        wait = (next_us - self._parts.clock.now_us()) / 1e6
        return min(max(wait, 0.005), self._parts.pace.poll_seconds)

    async def _claim(self, run_id: str) -> Run | None:
        def claim(rows: Rows, now_us: int) -> Change[Run]:
            run = rows.run(run_id)
            if run is None:
                raise NotFound("the run is gone")
            after, event = claimed(run, self._parts.owner, now_us + self._lease_us, now_us)
            return Change(result=after, put=[after], events=[event])

        try:
            committed = await self._parts.store.write(Reads(runs=[run_id]), claim)
        except (Refusal, NotFound):
            return None
        return committed.runs[run_id].run

    def drive(self, run: Run) -> None:
        """Drive a run that this process has just claimed."""
        task = asyncio.create_task(self._drive_guarded(run), name=f"run {run.id}")
        self._driving[run.id] = task

        def done(task: asyncio.Task[None]) -> None:
            if self._driving.get(run.id) is task:
                del self._driving[run.id]
            if self._has_backlog:
                self._ready.set()

        task.add_done_callback(done)

    async def _drive_guarded(self, run: Run) -> None:
        """Drive a run; whatever breaks, it does not stay RUNNING without a driver."""
        parts = self._parts
        executor: Executor | None = None
        try:
            await pass_by("after_claim_before_launch")
            case = await self._case(run)
            if case is None:
                return
            executor = Executor(parts, case)
            self._executors[run.id] = executor
            executor.hint(case.position)
            if not self._is_open:
                executor.give_back()
            await executor.drive()
        except Refusal:
            log.info("run taken over", extra={"action": "run_lost", "run_id": run.id})
        except Exception:
            log.exception("executor broke", extra={"action": "executor_broke", "run_id": run.id})
            await self._let_go(run, lambda r, at: worker_lost(r, at, "the service broke"))
        finally:
            if self._executors.get(run.id) is executor:
                self._executors.pop(run.id, None)

    async def _case(self, run: Run) -> CaseFile | None:
        """What must be known of it; None when its agent is gone, which ends it."""
        parts = self._parts
        try:
            return await CaseFile.load(run, parts.store, parts.codec, parts.blobs, parts.tokens)
        except LookupError as missing:
            what = str(missing)
            await self._let_go(run, lambda r, at: _unrunnable(r, at, what))
            return None

    async def _let_go(self, run: Run, decide: LastWord) -> None:
        def unit(rows: Rows, now_us: int) -> Change[Run]:
            mine = fence(rows.run(run.id), self._parts.owner, run.epoch)
            return conclude(rows, mine, decide, now_us, Limits())

        try:
            reads = reads_of_end(run, has_children=True)
            await self._parts.store.write(reads, unit)
        except (Refusal, Unavailable):
            log.info("left with its lease", extra={"action": "run_left", "run_id": run.id})


def _unrunnable(run: Run, now_us: int, missing: str) -> tuple[Run, list[NewEvent]]:
    error = RunError(reason=FailureReason.AGENT_NOT_FOUND, message=f"missing: {missing}")
    return ended(run, Trigger.RAISE, RunState.FAILED, now_us, error=error)


async def _first_of(event: asyncio.Event, timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        pass
