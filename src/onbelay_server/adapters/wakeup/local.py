"""Hints within one process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from onbelay_server.ports.wakeup import Hear


@dataclass(slots=True, eq=False)
class _Listener:
    hear: Hear
    loop: asyncio.AbstractEventLoop
    topics: set[str] = field(default_factory=set)
    is_called: bool = False


class LocalWakeup:
    """Wakeup for those who commit and wait in one process; `wake` may come from any thread.

    Hints that come before a listener's loop gets to it are handed over together, each topic once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[_Listener] = []

    def wake(self, topics: Iterable[str]) -> None:
        fresh = frozenset(topics)
        if not fresh:
            return
        with self._lock:
            for listener in self._listeners:
                listener.topics |= fresh
                if not listener.is_called:
                    listener.is_called = self._call(listener)

    def _call(self, listener: _Listener) -> bool:
        try:
            listener.loop.call_soon_threadsafe(self._deliver, listener)
        except RuntimeError:
            # Its loop is closed: nobody waits there any more.
            return False
        return True

    def _deliver(self, listener: _Listener) -> None:
        with self._lock:
            topics = frozenset(listener.topics)
            listener.topics.clear()
            listener.is_called = False
            listens = listener in self._listeners
        if listens:
            listener.hear(topics)

    def listen(self, hear: Hear) -> Callable[[], None]:
        listener = _Listener(hear, asyncio.get_running_loop())
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end
