"""Futures, tasks and timers of the run's own loop: what a replay must find in the same order."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from threading import current_thread, main_thread
from typing import Any

from onbelay_agent.branch import Branch, escaped


def contained_errors() -> tuple[type[BaseException], ...]:
    """What a task may raise without ending the loop that runs it.

    In the main thread an interrupt is the user's; in another only agent code can have raised it."""
    if current_thread() is main_thread():
        return (SystemExit,)
    return (SystemExit, KeyboardInterrupt)


class RunFuture(asyncio.Future[Any]):
    """A future that hashes by creation number, so that sets of futures iterate alike."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number

    __eq__ = object.__eq__


class RunTask(asyncio.Task[Any]):
    """A task that knows its branch and hashes by creation number."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        number: int,
        loop: asyncio.AbstractEventLoop,
        parent: Branch,
        number_all: Callable[[], None],
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        self._number = number
        self._parent = parent
        self._explicit = name
        self._branch: Branch | None = None
        self._numbering = number_all
        # asyncio's own numbers count all tasks of the process, which no replay repeats.
        super().__init__(coro, loop=loop, name=name or f"Task-{number}", context=context)

    def __hash__(self) -> int:
        return self._number

    __eq__ = object.__eq__

    def set_name(self, value: object) -> None:
        """Name the task; its branch follows when that is the first thing done with it."""
        self._explicit = str(value)
        super().set_name(value)

    @property
    def branch(self) -> Branch:
        """Where it is in the tree of tasks."""
        if self._branch is None:
            self._numbering()
            assert self._branch is not None
        return self._branch

    def number(self) -> None:
        """Take the next branch with its label, once `asyncio.create_task` has set its name.

        Every task takes one, so that what a task says or asks changes no other's place."""
        if self._branch is not None:
            return
        if self._explicit is not None:
            label = "=" + escaped(self._explicit)
        else:
            coro = self.get_coro()
            label = escaped(getattr(coro, "__name__", type(coro).__name__))
        self._branch = self._parent.child(label)

    def place(self) -> str:
        """Where it waits, as `function (file:line)` of its innermost coroutine."""
        coro: Any = self.get_coro()
        name = getattr(coro, "__qualname__", "?")
        where = ""
        while coro is not None:
            frame = getattr(coro, "cr_frame", None)
            if frame is not None:
                name = coro.__qualname__
                where = f"({frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno})"
            coro = getattr(coro, "cr_await", None)
        return f"waits in {name} {where}"


class RunTimer(asyncio.TimerHandle):
    """A timer that is a durable wait; `wait` is whatever the timekeeper attached to it."""

    wait: Any = None
    _scheduled: bool
