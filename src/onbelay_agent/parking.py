"""Code that swallows its own end is parked: it is never run, closed or freed again.

Python throws GeneratorExit into a coroutine that it frees, at any moment and outside of any task,
at the latest when the process exits. Code that catches it in a loop may then never return: without
a task `asyncio.timeout` and TaskGroup raise at once, without a loop `asyncio.sleep` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
from collections.abc import Coroutine, Generator
from typing import Any

_MOST_STOPS = 100
"""So often tasks may stop the loop that ends them before they are left alone."""


def park(thing: object) -> None:
    """Keep it, and all it refers to, for as long as the process lives."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def park_coroutine(coro: Any) -> None:
    """The same for a coroutine; one that never began has no code to swallow anything."""
    if inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        coro.close()
    else:
        park(coro)


class Leash:
    """Awaits a coroutine until it is cut: from then on the coroutine is never run again.

    Cutting takes effect when the task that awaits it is woken, by a cancellation at the latest."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro
        self._is_cut = False

    def cut(self) -> None:
        """Let the coroutine run no more."""
        self._is_cut = True

    def __await__(self) -> Generator[Any, Any, Any]:
        coro = self._coro
        told: BaseException | None = None
        while True:
            try:
                waited = coro.send(None) if told is None else coro.throw(told)
            except StopIteration as end:
                return end.value
            finally:
                told = None
            try:
                yield waited
            except GeneratorExit:
                park(coro)
                raise
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
                told = error
            if self._is_cut:
                park(coro)
                raise asyncio.CancelledError


def end_tasks(loop: asyncio.AbstractEventLoop, seconds: float) -> list[str]:
    """Cancel every task of a loop that was stopped; what is not over in time is parked and named.

    Its async generators are closed in the same way. Called on the loop's own thread."""
    for task in (tasks := asyncio.all_tasks(loop)):
        task.cancel()
    if tasks:
        _within(loop, asyncio.wait(tasks, timeout=seconds))
    closing = loop.create_task(loop.shutdown_asyncgens(), name="async generators")
    _within(loop, asyncio.wait([closing], timeout=seconds))
    left = asyncio.all_tasks(loop)
    for task in left:
        park(task)
    return sorted(_name(task) for task in left)


def _within(loop: asyncio.AbstractEventLoop, wait: Coroutine[Any, Any, Any]) -> None:
    waiting = loop.create_task(wait)
    for _ in range(_MOST_STOPS):
        # A task may raise one of these, which it holds as its exception, or stop the loop.
        with contextlib.suppress(SystemExit, KeyboardInterrupt, RuntimeError):
            loop.run_until_complete(waiting)
        if waiting.done():
            return


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", "") or task.get_name()
