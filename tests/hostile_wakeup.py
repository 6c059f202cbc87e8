"""Hints as the worst network would carry them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from onbelay_server.ports.wakeup import Hear


class HostileWakeup:
    """Wakeup that drops, doubles, delays and reorders hints, and sends some that nobody meant.

    Nothing may fail with it, only take longer. The same seed makes the same choices.
    """

    def __init__(self, seed: int, *, drop: float = 0.5) -> None:
        self._random = random.Random(seed)
        self._drop = drop
        self._listeners: list[tuple[Hear, asyncio.AbstractEventLoop]] = []
        self._kept: list[str] = []

    def wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            if self._random.random() >= self._drop:
                self._kept += [topic] * self._random.choice((1, 1, 2, 3))
        self._random.shuffle(self._kept)
        # What stays behind comes with a later hint, after newer ones.
        count = self._random.randint(0, len(self._kept))
        sent, self._kept = self._kept[:count], self._kept[count:]
        for topic in sent:
            hint = frozenset({topic} if self._random.random() < 0.9 else {topic, "nothing"})
            for hear, loop in list(self._listeners):
                loop.call_soon_threadsafe(hear, hint)

    def listen(self, hear: Hear) -> Callable[[], None]:
        entry = (hear, asyncio.get_running_loop())
        self._listeners.append(entry)

        def end() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return end
