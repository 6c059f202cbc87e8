"""A clock that only moves when it is told to."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class _Sleeper:
    wake_at: float
    number: int
    future: asyncio.Future[None] = field(compare=False)


class ManualClock:
    """Clock set by hand: wall and monotonic time can be moved apart, the wall also backwards."""

    def __init__(self, now_us: int = 1_790_000_000_000_000, *, tick_us: int = 0) -> None:
        """With `tick_us` the wall clock is so much later at every reading."""
        self._tick_us = tick_us
        self._now_us = now_us
        self._monotonic = 0.0
        self._sleepers: list[_Sleeper] = []
        self._count = 0
        self.readings = 0
        """How often the monotonic time was asked for."""

    def now_us(self) -> int:
        self._now_us += self._tick_us
        return self._now_us

    def monotonic(self) -> float:
        self.readings += 1
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, _Sleeper(self._monotonic + seconds, self._count, future))
        await future

    @property
    def sleepers(self) -> int:
        """How many sleep on this clock."""
        return sum(1 for one in self._sleepers if not one.future.done())

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks and wake whoever slept until then."""
        self._now_us += round(seconds * 1_000_000)
        self._monotonic += seconds
        while self._sleepers and self._sleepers[0].wake_at <= self._monotonic:
            sleeper = heapq.heappop(self._sleepers)
            if not sleeper.future.done():
                sleeper.future.set_result(None)

    def step(self, seconds: float) -> None:
        """Set the wall clock, as an operator or a time server does; nobody wakes."""
        self._now_us += round(seconds * 1_000_000)
