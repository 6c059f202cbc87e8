"""The work of a step: the author's function, run beside the agent on the host's loop.

An async function runs as a task of the host's loop in a fresh context, a sync one in a daemon
thread of its own. An async function that swallows its cancellation is cut off: it is not run again.
A thread cannot be killed: once it is no longer wanted its next emit raises RunStopped in it, and
one that goes on regardless is named when the copy ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from onbelay_agent import values
from onbelay_agent.errors import RunStopped, ValueNotStorable, described
from onbelay_agent.parking import Leash, park
from onbelay_agent.protocol import Failure
from onbelay_agent.task import contained_errors
from onbelay_agent.values import Adapter

INSIDE: ContextVar[StepWork | None] = ContextVar("onbelay_step", default=None)
"""The step whose function is running here; None in agent code."""

_CANCELLED_ITSELF = "its function cancelled itself"

logger = logging.getLogger("onbelay_agent")


@dataclass(frozen=True, slots=True)
class Retries:
    """How a step's function is tried again after it raised, within the same step.

    `times` further tries at most; the first waits `delay_seconds`, each later one `factor` times as
    long, never more than `longest_seconds`."""

    times: int
    delay_seconds: float = 1.0
    factor: float = 2.0
    longest_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.times <= 100:
            raise ValueError("retries: times must be between 0 and 100")
        if self.delay_seconds < 0 or self.longest_seconds < 0 or self.factor < 1:
            raise ValueError("retries: delays must not be negative, nor factor below 1")

    def delay_before(self, again: int) -> float:
        """Seconds to wait before the `again`-th further try, counted from 1."""
        return min(self.longest_seconds, self.delay_seconds * self.factor ** min(again - 1, 64))


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What to run for a step, and how."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    adapter: Adapter | None
    once: bool
    retries: Retries | None
    timeout_seconds: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step: exactly one of `ok_json` and `failure`."""

    ok_json: str | None
    failure: Failure | None
    duration_us: int


class StepWork:
    """One attempt at a step. `wanted` turns false when nobody waits for it any more."""

    def __init__(
        self,
        step_id: str,
        name: str,
        attempt: int,
        plan: StepPlan,
        loop: asyncio.AbstractEventLoop,
        log: Callable[[StepWork, str], None],
        done: Callable[[StepWork, Outcome | None], None],
    ) -> None:
        self.step_id = step_id
        self.branch = f"{step_id}/attempt{attempt}"
        self.wanted = True
        self.stopping = False
        """The run is ending; the function may still finish."""
        self.backoff = 1.0
        """Factor on the waits between tries."""
        self.run_id = ""
        """For the log."""
        self._name = name
        self._plan = plan
        self._loop = loop
        self._log = log
        self._done = done
        self.over = asyncio.Event()
        """Set once neither its task nor a thread of it runs."""
        self._ordinal = 0
        self._threads_running = 0
        self._context = contextvars.Context()
        self._context.run(INSIDE.set, self)
        self._task: asyncio.Task[Outcome | None] | None = None
        self._leash: Leash | None = None
        self._is_resting = False
        """Between two tries."""

    def start(self) -> None:
        """Begin; `done` is called once on the host's loop, with None when it was told to end."""
        self._task = self._loop.create_task(self._run(), context=self._context)
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """End it: an async function is cancelled, a thread is asked through its next emit."""
        self.wanted = False
        self.stopping = True
        if self._task is not None:
            self._task.cancel()

    def cut_off(self) -> None:
        """The time it had to end is over: its async function runs no more. A thread goes on."""
        if self._leash is not None:
            self._leash.cut()
        self.cancel()

    def park(self) -> None:
        """It would not even end when it was cut off: see to it that it is never freed."""
        park(self)
        park(self._task)

    def hurry(self) -> None:
        """The run is ending: the try in flight may finish, no other begins."""
        self.stopping = True
        if self._is_resting and self._task is not None:
            self._task.cancel()

    def next_place(self) -> str:
        """The place of this attempt's next emit. Host loop only."""
        self._ordinal += 1
        return f"{self.branch}:emit#{self._ordinal}"

    @property
    def alive(self) -> bool:
        """Its task or one of its threads still runs."""
        return self._threads_running > 0 or (self._task is not None and not self._task.done())

    def _ended(self, task: asyncio.Task[Outcome | None]) -> None:
        if not self.alive:
            self.over.set()
        if task.cancelled():
            failure = self._failure("CancelledError", _CANCELLED_ITSELF)
        elif (error := task.exception()) is not None:
            failure = self._failure(*described(error))
        else:
            self._done(self, task.result())
            return
        # However it ended, whoever waits for it must hear of it, unless it was told to end.
        self._done(self, None if self.stopping else Outcome(None, failure, 0))

    async def _run(self) -> Outcome | None:
        began = time.monotonic_ns()
        retries = self._plan.retries
        most = retries.times if retries is not None else 0
        again = 0
        while True:
            ok_json, failure = await self._once()
            if failure is None or again >= most or self._threads_running:
                return Outcome(ok_json, failure, (time.monotonic_ns() - began) // 1000)
            if self.stopping:
                return None  # not its last word: it would have been tried again
            assert retries is not None
            again += 1
            delay = retries.delay_before(again) * self.backoff
            text = f"{failure.message}; trying again in {delay:g} s ({again} of {most})"
            self._log(self, text)
            self._is_resting = True
            await asyncio.sleep(delay)
            self._is_resting = False

    async def _once(self) -> tuple[str | None, Failure | None]:
        try:
            if self._plan.timeout_seconds is None:
                return await self._result(), None
            async with asyncio.timeout(self._plan.timeout_seconds):
                return await self._result(), None
        except asyncio.CancelledError:
            if not self.wanted:
                raise
            return None, self._failure("CancelledError", _CANCELLED_ITSELF)
        except KeyboardInterrupt as error:
            if KeyboardInterrupt not in contained_errors():
                raise
            return None, self._failure(*described(error))
        except TimeoutError as error:
            seconds = self._plan.timeout_seconds
            text = described(error)[1] or (
                f"timed out after {seconds:g} s" if seconds else "timed out"
            )
            if self._threads_running:
                # Two of them at once might do what one of them may do.
                text += "; its thread cannot be ended, so it is not tried again"
            return None, self._failure("TimeoutError", text)
        except BaseException as error:
            extra = {"action": "step_raised", "run_id": self.run_id, "step": self.step_id}
            logger.warning("a step raised", exc_info=error, extra=extra)
            return None, self._failure(*described(error))

    async def _result(self) -> str:
        plan = self._plan
        if inspect.iscoroutinefunction(plan.fn):
            return self._encoded(await self._leashed(plan.fn(*plan.args)))
        value, text = await self._in_thread()
        if text is not None:
            return text
        return self._encoded(await self._leashed(_awaited(value)))

    def _leashed(self, coro: Coroutine[Any, Any, Any]) -> Leash:
        self._leash = leash = Leash(coro)
        return leash

    async def _in_thread(self) -> tuple[Any, str | None]:
        """The function's value, and its JSON unless the value must be awaited first."""
        loop = self._loop
        ended: asyncio.Future[tuple[Any, str | None]] = loop.create_future()

        def settle(result: tuple[Any, str | None] | None, error: BaseException | None) -> None:
            self._threads_running -= 1
            if not self.alive:
                self.over.set()
            if ended.done():
                return
            if error is not None:
                ended.set_exception(error)
            else:
                ended.set_result(result if result is not None else (None, None))

        def run() -> None:
            result: tuple[Any, str | None] | None = None
            failed: BaseException | None = None
            try:
                value = self._plan.fn(*self._plan.args)
                result = (value, None if inspect.isawaitable(value) else self._encoded(value))
            except StopIteration as error:
                failed = RuntimeError(": ".join(described(error)))
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                failed = error
            try:
                loop.call_soon_threadsafe(settle, result, failed)
            except RuntimeError:
                # The host's loop is gone, and with it everybody who could hear of the result.
                return

        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(run,), name=f"step {self.step_id}", daemon=True
        )
        thread.start()
        self._threads_running += 1
        return await ended

    def _encoded(self, value: Any) -> str:
        adapter = self._plan.adapter
        try:
            text = values.encode(value, adapter)
            if adapter is not None:
                values.decode(text, adapter)
        except ValueNotStorable as error:
            raise ValueNotStorable(f"its result cannot be stored: {error}") from None
        return text

    def _failure(self, error_type: str, message: str) -> Failure:
        message = message[:2000].encode("utf-8", "replace").decode()
        return Failure(
            type="StepFailed",
            message=f"{self._name}: {error_type}: {message}" if message else error_type,
            data_json=values.encode(
                {"step": self._name, "error_type": error_type, "message": message}
            ),
        )

    def refuse_if_unwanted(self) -> None:
        """Raises RunStopped in a function whose step nobody waits for any more."""
        if not self.wanted:
            raise RunStopped(f"step {self._name!r} is no longer wanted")


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
