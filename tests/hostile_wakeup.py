"""A wakeup that drops, doubles, delays and reorders hints: nothing may fail for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from onbelay_server.adapters.wakeup import LocalWakeup
from onbelay_server.ports.wakeup import Hear


class HostileWakeup:
    """Wakeup in one process; what becomes of each hint is chance, the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._inner = LocalWakeup()
        self._chance = random.Random(seed)
        self._late: list[str] = []

    def wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            fate = self._chance.randrange(4)
            if fate == 0:
                continue
            if fate == 1:
                self._late.append(topic)
                continue
            self._inner.wake([topic] * (fate - 1))
        if self._late and self._chance.randrange(2):
            self._chance.shuffle(self._late)
            self._inner.wake([self._late.pop()])

    def listen(self, hear: Hear) -> Callable[[], None]:
        return self._inner.listen(hear)
