"""The loops on which in-process agents run: never the one that serves and commits."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable


class AgentLoop:
    """One event loop in a thread of its own. The thread is a daemon: code that blocks it for ever
    does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._thread.name

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function on the loop, in order; nothing happens once it is closed."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # closed: whoever was on it is gone too

    def close(self, timeout_seconds: float) -> bool:
        """Stop the loop; False when its thread is blocked and was left behind."""
        self.call(self.loop.stop)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


class AgentLoops:
    """A small pool, used in turn."""

    def __init__(self, count: int) -> None:
        self._loops = [AgentLoop(f"agent-loop-{number}") for number in range(1, count + 1)]
        self._next = itertools.cycle(self._loops)

    def take(self) -> AgentLoop:
        """The loop whose turn it is."""
        return next(self._next)

    def close(self, timeout_seconds: float) -> list[str]:
        """Stop them all; the names of threads that are blocked and were left behind."""
        return [loop.name for loop in self._loops if not loop.close(timeout_seconds)]
