"""The run's own event loop: asyncio for agent code, turned by the host's loop.

It has a queue of ready callbacks and no selector. An empty queue is idle, exactly: nothing but a
released result can make the agent's code go on. Its clock is the time of the last released result,
its timers are durable waits, and whatever would reach outside (sockets, threads, executors,
subprocesses) is refused by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import sys
import weakref
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from threading import current_thread, get_ident
from types import CodeType
from typing import Any, NoReturn, Protocol

from onbelay_agent.branch import ROOT, Branch, FinalizerBranch
from onbelay_agent.errors import RefusedCall
from onbelay_agent.refusals import refuse_in
from onbelay_agent.task import RunFuture, RunTask, RunTimer, contained_errors

logger = logging.getLogger("onbelay_agent")

_ENSURE_FUTURE: frozenset[CodeType] = frozenset(
    fn.__code__
    for fn in (asyncio.ensure_future, getattr(asyncio.tasks, "_ensure_future", None))
    if fn is not None
)
_WRAP_FUTURE = asyncio.wrap_future.__code__
_TASKS_FILE = asyncio.tasks.__file__


class Timekeeper(Protocol):
    """Who makes timers durable."""

    def timer_set(self, timer: RunTimer) -> None:
        """A timer in the future was set."""

    def timer_cancelled(self, timer: RunTimer) -> None:
        """It is no longer wanted."""


class RunLoop(asyncio.AbstractEventLoop):
    """See the module. Not thread-safe: used from the host loop's thread alone."""

    def __init__(self, timekeeper: Timekeeper) -> None:
        self.now_us = 0
        self.quiet = True
        """While the run is replayed and while it ends, errors nobody waited for are not told."""
        self.driver: int | None = None
        """The thread that drives the run, while it does: nobody else may make its code go on."""
        self.intruder = ""
        """Who tried to, first."""
        self._ready: deque[asyncio.Handle] = deque()
        self._numbers = itertools.count(1)
        self.dead_branch = Branch(f"{ROOT}/ended", "")
        """Of calls that are made although the run has ended; nothing is ever asked in it."""
        self._callbacks: Branch
        self._finalizer: Branch
        self._timekeeper = timekeeper
        self._tasks: list[RunTask] = []
        self._unnumbered: list[RunTask] = []
        """Made, and perhaps not named yet."""
        self._sweep_at = 64
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._exception_handler: Callable[..., object] | None = None
        self._turning = False

    # ---- turned by the host ----------------------------------------------------------------------

    def turn(self, most_handles: int) -> int:
        """Run until idle or until `most_handles` callbacks ran; returns how many did.

        Must be called from a plain callback of the host's loop, never from inside a task."""
        ready = self._ready
        if not ready:
            return 0
        outer = events._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._generator_begun, finalizer=self._generator_dropped)
        self._turning = True
        contained = contained_errors()
        ran = 0
        try:
            while ready and ran < most_handles:
                ran += 1
                handle = ready.popleft()
                if not handle.cancelled():
                    # The task holds what it raised as its exception; it must not end the host.
                    with contextlib.suppress(*contained):
                        handle._run()
        finally:
            self._turning = False
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(outer)
        return ran

    @property
    def idle(self) -> bool:
        """Nothing is left to run."""
        return not self._ready

    def unfinished(self) -> list[RunTask]:
        """Tasks that are not done, in creation order."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._sweep_at = max(64, 2 * len(self._tasks))
        return list(self._tasks)

    def close_generators(self) -> None:
        """Close what async generators are still open, as tasks of the next turn."""
        generators = list(self._generators)
        self._generators.clear()
        for generator in generators:
            self._close_later(generator)

    def fire(self, timer: RunTimer) -> None:
        """Run a timer's callback in the next turn."""
        timer._scheduled = False
        self._ready.append(timer)

    def drop(self) -> None:
        """Run nothing more."""
        self._ready.clear()
        self._tasks.clear()
        self._unnumbered.clear()

    def plant(self, seed: str) -> Branch:
        """The root branch of a run with this seed."""
        self._callbacks = Branch(f"{ROOT}/callback", seed)
        self._finalizer = FinalizerBranch(f"{ROOT}/finalizer", seed)
        return Branch(ROOT, seed)

    def start(
        self, coro: Coroutine[Any, Any, Any], root: Branch, context: contextvars.Context
    ) -> RunTask:
        """Make the run's root task."""
        task = self._task(coro, root, None, context)
        task._branch = root
        return task

    def current_branch(self) -> Branch:
        """The branch of the running task. Raises RefusedCall outside of the run's tasks."""
        if not self._turning or events._get_running_loop() is not self:
            raise RefusedCall("the context was used outside of its run's own code")
        task = asyncio.current_task(self)
        if task is None:
            return self._callbacks
        if type(task) is not RunTask:
            raise RefusedCall(
                f"the task {task.get_name()!r} was not made by the run's loop; "
                "make it with asyncio.create_task or a TaskGroup"
            )
        return task.branch

    # ---- what asyncio asks of a loop -------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        if self.driver != get_ident():
            self._refuse_intruder("something the agent waits for was set")
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> NoReturn:
        self._refuse_intruder("loop.call_soon_threadsafe was called")

    def _refuse_intruder(self, what: str) -> NoReturn:
        """No replay would repeat it. Told again by name if the agent waits for it in vain."""
        where = f"in thread {current_thread().name!r} or in a step's function"
        if self.driver is None or self.driver == get_ident():
            where = "outside of the run's own code: in a step's function, or by a library"
        refused = f"{what} {where}; return it from a step instead"
        self.intruder = self.intruder or refused
        raise RefusedCall(refused)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = RunTimer(when, callback, args, self, context)
        if when <= self.time():
            self._ready.append(timer)
        else:
            timer._scheduled = True
            self._timekeeper.timer_set(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, RunTimer) and handle._scheduled:
            handle._scheduled = False
            self._timekeeper.timer_cancelled(handle)

    def time(self) -> float:
        return self.now_us / 1e6

    def create_future(self) -> RunFuture:
        if sys._getframe(1).f_code is _WRAP_FUTURE:
            raise RefusedCall("the result of a thread or executor is refused: put it in a step")
        return RunFuture(next(self._numbers), self)

    def call_future(self) -> RunFuture:
        """The future of a context call."""
        return RunFuture(next(self._numbers), self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> RunTask:
        if options.get("eager_start"):
            raise RefusedCall("eager tasks are not supported in agent code")
        caller = sys._getframe(1)
        if caller.f_code in _ENSURE_FUTURE:
            self._refuse_bare_as_completed(caller)
        running = asyncio.current_task(self)
        parent = running.branch if isinstance(running, RunTask) else self._callbacks
        return self._task(coro, parent, name, context)

    def _task(
        self,
        coro: Coroutine[Any, Any, Any],
        parent: Branch,
        name: str | None,
        context: contextvars.Context | None,
    ) -> RunTask:
        self._number_tasks()
        task = RunTask(
            coro,
            number=next(self._numbers),
            loop=self,
            parent=parent,
            number_all=self._number_tasks,
            name=name,
            context=context,
        )
        self._unnumbered.append(task)
        # Held until done: a task that only waits must not vanish with a garbage collection.
        self._tasks.append(task)
        if len(self._tasks) > self._sweep_at:
            self.unfinished()
        return task

    def _number_tasks(self) -> None:
        unnumbered, self._unnumbered = self._unnumbered, []
        for task in unnumbered:
            task.number()

    def _refuse_bare_as_completed(self, frame: Any) -> None:
        for _ in range(4):
            frame = frame.f_back
            if frame is None or frame.f_code.co_filename != _TASKS_FILE:
                return
            qualname = frame.f_code.co_qualname
            if "as_completed" in qualname or "_AsCompletedIterator" in qualname:
                raise RefusedCall(
                    "as_completed over coroutines starts them in an order no replay repeats; "
                    "give it tasks: [asyncio.create_task(c) for c in …]"
                )

    def is_running(self) -> bool:
        return self._turning

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Ignored: asyncio's debug mode times callbacks by a clock this loop does not have."""

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def set_exception_handler(self, handler: Any) -> None:
        self._exception_handler = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        logger.error(
            "In agent code: %s",
            context.get("message", "an error nobody waited for"),
            exc_info=error if error is not None else False,
        )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.quiet:
            return
        if self._exception_handler is not None:
            self._exception_handler(self, context)
        else:
            self.default_exception_handler(context)

    # ---- async generators ------------------------------------------------------------------------

    def _generator_begun(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators.add(generator)

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self.quiet:
            self._close_later(generator)

    def _close_later(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Not call_soon: a garbage collection may come at any moment.
        self._ready.append(asyncio.Handle(self._close_generator, (generator,), self))

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        task = self._task(generator.aclose(), self._finalizer, None, None)
        task._branch = self._finalizer


refuse_in(RunLoop)  # type: ignore[type-abstract]
