"""How a copy ends: the agent's code is unwound, work in flight gets its grace, Ended is sent.

The outcome is fixed before any of it: what the agent's code raises or returns from here on changes
nothing, and its calls are refused.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onbelay_agent.definition import AgentDefinition
from onbelay_agent.errors import described
from onbelay_agent.loop import RunLoop
from onbelay_agent.parking import park_coroutine
from onbelay_agent.protocol import MAX_INLINE_BYTES, Cancel, Ended
from onbelay_agent.task import RunTask
from onbelay_agent.work import Outcome, StepPlan, StepWork

if TYPE_CHECKING:
    from onbelay_agent.copy import Copy

logger = logging.getLogger("onbelay_agent")

ROUNDS = 10
"""Cancellations that code may survive before it is parked."""
MORE_TASKS = 50
"""Beyond twice as many as there were when the end began."""
MORE_HANDLES = 5_000
"""Callbacks a round, beyond ten for each of those tasks."""
MOST_REFUSALS = 1_000
"""After that many refused calls the code is parked: its next call never returns."""
LAST_WAIT_SECONDS = 0.35
"""For cancelled work to be over before it is cut off."""
CUT_SECONDS = 0.05
"""After that, until what still runs is named as abandoned."""
FINISHERS_SECONDS = 10.0


class Ending:
    """The end of one copy."""

    def __init__(self, copy: Copy, ended: Ended, grace_seconds: float) -> None:
        self._copy = copy
        self._ended = ended
        self._refusals = 0
        self._deadline = copy.host_loop.time() + max(0.0, grace_seconds)
        self._told_to_end = ended.outcome in ("stopped", "suspended")
        self._limit: asyncio.Timeout | None = None
        self._task: asyncio.Task[tuple[str, ...]] | None = None

    @property
    def tired(self) -> bool:
        """Too many calls were refused: the next one is parked instead."""
        return self._refusals > MOST_REFUSALS

    def refuse(self) -> None:
        """Raise what ends the run, unless the code has swallowed that too often already."""
        self._refusals += 1
        if not self.tired:
            assert self._copy.ending is not None
            raise self._copy.ending()

    def hasten(self, grace_seconds: float) -> None:
        """A stop came while the copy was ending: the deadline may come nearer, never go."""
        deadline = self._copy.host_loop.time() + max(0.0, grace_seconds)
        if deadline < self._deadline:
            self._deadline = deadline
            if self._limit is not None and self._told_to_end:
                self._limit.reschedule(deadline)

    def begin(self) -> None:
        """Unwind from a plain callback of the host's loop, then wind down what is in flight."""
        self._copy.host_loop.call_soon(self._unwind_and_wind_down)

    def _unwind_and_wind_down(self) -> None:
        copy = self._copy
        if self._ended.outcome == "diverged":
            copy.emits.discard()
        self._unwind()
        if copy.ended:
            copy.host_loop.call_later(LAST_WAIT_SECONDS, copy.works.cut_off)
            return
        copy.outbox.forget_begins()
        if self._told_to_end:
            copy.works.hurry()
        else:
            self._cancel_calls()
        needs_finishers = bool(copy.finishers) and self._ended.outcome in (
            "returned",
            "raised",
            "stopped",
        )
        large = len(self._ended.output_json or "") > MAX_INLINE_BYTES // 4
        if (
            copy.works.left()
            or needs_finishers
            or large
            or copy.outbox.busy
            or copy.releases.fetching
        ):
            self._task = copy.host_loop.create_task(self._wind_down(needs_finishers))
            self._task.add_done_callback(self._wound_down)
        else:
            self._send(())

    # ---- the agent's code ------------------------------------------------------------------------

    def _unwind(self) -> None:
        copy = self._copy
        loop = copy.run_loop
        loop.quiet = True
        loop.driver = copy.thread_id
        try:
            self._run_to_its_end(loop)
        finally:
            loop.driver = None

    def _run_to_its_end(self, loop: RunLoop) -> None:
        copy = self._copy
        assert copy.ending is not None
        for call in list(copy.calls.by_id.values()):
            if call.future is not None and not call.future.done():
                call.future.set_exception(copy.ending())
        # Bounds follow from what there is to end: code that makes more of it will not end.
        count = len(loop.unfinished())
        most_tasks, most_handles = 2 * count + MORE_TASKS, 10 * count + MORE_HANDLES
        left = ROUNDS * most_handles // 2 - loop.turn(most_handles)
        for _ in range(ROUNDS):
            loop.close_generators()
            tasks = loop.unfinished()
            if left <= 0 or len(tasks) > most_tasks or (not tasks and loop.idle):
                break
            for task in tasks:
                task.cancel()
            left -= loop.turn(most_handles)
        for task in loop.unfinished():
            park_coroutine(task.get_coro())
        loop.drop()

    def _cancel_calls(self) -> None:
        copy = self._copy
        copy.works.cancel_all()
        if self._ended.outcome in ("returned", "raised"):
            open_ids = copy.calls.recorded_open()
            if open_ids:
                copy.outbox.send(Cancel(step_ids=open_ids))

    # ---- what runs beside it ---------------------------------------------------------------------

    async def _wind_down(self, needs_finishers: bool) -> tuple[str, ...]:
        copy = self._copy
        works = copy.works.left()
        if self._told_to_end:
            await self._until_over(works, self._deadline)
            for work in works:
                work.cancel()
        await self._until_over(works, copy.host_loop.time() + LAST_WAIT_SECONDS)
        abandoned = [work.step_id for work in await self._cut_off(works, CUT_SECONDS)]
        if needs_finishers:
            # Ended is due within a second of the grace, so after a stop they share what is left.
            total_seconds = 0.3 if self._told_to_end else FINISHERS_SECONDS
            seconds = total_seconds / len(copy.finishers)
            for fn in reversed(copy.finishers):
                if not await self._finished(fn, seconds):
                    abandoned.append(f"on_finish {getattr(fn, '__qualname__', fn)}")
        content = (self._ended.output_json or "").encode()
        if len(content) > MAX_INLINE_BYTES:
            await self._keep_output(content)
        await copy.outbox.drained(0.2 if self._told_to_end else FINISHERS_SECONDS)
        await copy.releases.end()
        return tuple(abandoned)

    async def _until_over(self, works: list[StepWork], deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline) as self._limit:
                for work in works:
                    await work.over.wait()
        except TimeoutError:
            logger.debug("Steps still run at the end of their time")
        finally:
            self._limit = None

    async def _cut_off(self, works: list[StepWork], seconds: float) -> list[StepWork]:
        """Run none of them any more; those that go on nevertheless."""
        left = [work for work in works if work.alive]
        for work in left:
            work.cut_off()
        await self._until_over(left, self._copy.host_loop.time() + seconds)
        left = [work for work in left if work.alive]
        for work in left:
            work.park()
        return left

    async def _keep_output(self, content: bytes) -> None:
        try:
            await self._copy.host.put_blob(content)
        except Exception as error:
            logger.exception("The host could not keep the run's output")
            self._ended = Ended(
                outcome="diverged",
                message=f"the run's output could not be kept: {described(error)[1]}",
            )
            return
        self._ended = dataclasses.replace(
            self._ended, output_json=None, content_sha256=hashlib.sha256(content).hexdigest()
        )

    async def _finished(self, fn: Callable[[], Any], seconds: float) -> bool:
        """Run one of the author's on_finish functions; False when it would not end in time."""

        def done(work: StepWork, outcome: Outcome | None) -> None:
            if outcome is not None and outcome.failure is not None:
                logger.error("An on_finish function failed: %s", outcome.failure.message)

        plan = StepPlan(_resultless(fn), (), None, False, None, None)
        copy = self._copy
        work = StepWork("on_finish", "on_finish", 1, plan, copy.host_loop, _no_retries, done)
        work.start()
        await self._until_over([work], copy.host_loop.time() + seconds)
        if work.alive:
            work.cancel()
            await self._until_over([work], copy.host_loop.time() + 0.01)
        return not await self._cut_off([work], 0.01)

    def _wound_down(self, task: asyncio.Task[tuple[str, ...]]) -> None:
        if task.cancelled():
            # By a step that cancels every task of its loop: the end must be said all the same.
            self._send(tuple(work.step_id for work in self._copy.works.left() if work.alive))
            return
        error = task.exception()
        if error is not None:
            logger.error("The copy of a run failed while it ended", exc_info=error)
        self._send(() if error is not None else task.result())

    def _send(self, abandoned: tuple[str, ...]) -> None:
        copy = self._copy
        if copy.ended:
            return
        emits = copy.emits.take()
        copy.ended = True
        copy.outbox.abandon()
        copy.host.send(dataclasses.replace(self._ended, emits=emits, abandoned=abandoned))


def end_of(definition: AgentDefinition, root: RunTask, run_id: str) -> Ended:
    """What the agent's code came to. Where it raised is for the log: the run's own readers are told
    what, and no paths."""
    if root.cancelled():
        return raised(definition, asyncio.CancelledError())
    failed = root.exception()
    if failed is not None:
        extra = {"action": "agent_raised", "run_id": run_id, "agent": definition.name}
        logger.warning("the agent raised", exc_info=failed, extra=extra)
        return raised(definition, failed)
    try:
        return Ended(outcome="returned", output_json=definition.encode_output(root.result()))
    except BaseException as error:  # noqa: BLE001 - the result may be an object with code of its own
        text = f"the agent's result cannot be stored: {described(error)[1][:4000]}"
        return Ended(outcome="raised", error_type="ValueNotStorable", message=text)


def raised(definition: AgentDefinition, error: BaseException) -> Ended:
    """The end of a run by what its code raised."""
    error_type, message = definition.described_error(error)
    return Ended(outcome="raised", error_type=error_type, message=message)


def _resultless(fn: Callable[[], Any]) -> Callable[[], Any]:
    if inspect.iscoroutinefunction(fn):

        async def awaited() -> None:
            await fn()

        return awaited

    def called() -> None:
        fn()

    return called


def _no_retries(work: StepWork, message: str) -> None:
    raise AssertionError("on_finish functions are not tried again")
