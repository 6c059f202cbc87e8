"""The loops on which in-process agents run: never the one that serves and commits."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from onbelay_agent.parking import end_tasks

T = TypeVar("T")

_END_SECONDS = 0.2
"""For the tasks left on a loop to be over, and for its async generators to be closed."""


class Bridge:
    """Carries calls from one loop to another, in order. All that are made in one turn of the first
    wake the second once: a wake costs more than a call."""

    def __init__(
        self, origin: asyncio.AbstractEventLoop, target: asyncio.AbstractEventLoop
    ) -> None:
        self._origin = origin
        self._target = target
        self._waiting: list[Callable[[], object]] = []

    def post(self, call: Callable[[], object]) -> None:
        """Have it called over there. Used on the origin's thread only."""
        self._waiting.append(call)
        if len(self._waiting) == 1:
            self._origin.call_soon(self._cross)

    def _cross(self) -> None:
        calls, self._waiting = self._waiting, []
        with suppress(RuntimeError):  # closed: whoever was on it is gone too
            self._target.call_soon_threadsafe(self._arrive, calls)

    def _arrive(self, calls: list[Callable[[], object]]) -> None:
        for call in calls:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said
                # One run's trouble is not that of those that crossed with it.
                context = {"message": "a call between loops broke", "exception": error}
                self._target.call_exception_handler(context)


class AgentLoop:
    """One event loop in a thread of its own. The thread is a daemon: code that blocks it for ever
    does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._is_closing = False
        self._left: list[str] = []
        self._bridges: tuple[Bridge, Bridge] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._thread.name

    def bridges(self, server_loop: asyncio.AbstractEventLoop) -> tuple[Bridge, Bridge]:
        """The ways from the service's loop to this one and back."""
        if self._bridges is None:
            self._bridges = Bridge(server_loop, self.loop), Bridge(self.loop, server_loop)
        return self._bridges

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the loop, in order; nothing happens once it is closed."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # closed: whoever was on it is gone too

    def running(self, kind: type[T]) -> T | None:
        """The object of that class whose method the thread is inside of, the innermost first."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, kind):
                return owner
            frame = frame.f_back
        return None

    def stop(self) -> None:
        """Have the loop end, with everything on it."""
        if not self._is_closing:
            self._is_closing = True
            self.call(self.loop.stop)

    def close(self, timeout_seconds: float) -> list[str]:
        """Stop the loop; the names of tasks that would not end, or of its thread where that is
        blocked: they are left behind."""
        self.stop()
        self._thread.join(timeout_seconds)
        return [self.name] if self._thread.is_alive() else self._left

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            while not self._is_closing:
                # A task that raised one of these holds it already. The loop's other runs go on.
                with suppress(SystemExit, KeyboardInterrupt):
                    self.loop.run_forever()
        finally:
            self._left = end_tasks(self.loop, _END_SECONDS)
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


class AgentLoops:
    """A small pool, used in turn."""

    def __init__(self, count: int) -> None:
        self._made = 0
        self._loops = [self._make() for _ in range(count)]
        self._turn = 0

    def take(self) -> AgentLoop:
        """The loop whose turn it is."""
        self._turn = (self._turn + 1) % len(self._loops)
        return self._loops[self._turn]

    def replace(self, blocked: AgentLoop) -> None:
        """Leave a blocked loop to its thread and put a new one in its place."""
        if blocked in self._loops:
            self._loops[self._loops.index(blocked)] = self._make()

    def close(self, timeout_seconds: float) -> list[str]:
        """Stop them all; the names of threads and tasks that were left behind."""
        for loop in self._loops:
            loop.stop()
        return [name for loop in self._loops for name in loop.close(timeout_seconds)]

    def _make(self) -> AgentLoop:
        self._made += 1
        return AgentLoop(f"agent-loop-{self._made}")
