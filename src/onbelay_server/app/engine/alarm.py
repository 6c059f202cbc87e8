"""When something is due next, as far as this process knows."""

from __future__ import annotations

import asyncio

from onbelay_server.ports.clock import Clock


class Alarm:
    """Wakes one sleeper at the earliest time anybody has set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._earliest_us: int | None = None
        self._is_earlier = asyncio.Event()

    def set(self, at_us: int) -> None:
        """Something is due then."""
        if self._earliest_us is None or at_us < self._earliest_us:
            self._earliest_us = at_us
            self._is_earlier.set()

    def clear(self) -> None:
        """Whoever sleeps looks for itself from here on; what is set meanwhile counts."""
        self._earliest_us = None

    async def sleep(self, longest_seconds: float) -> None:
        """Return when something is due, or after the longest time."""
        until = self._clock.monotonic() + longest_seconds
        while True:
            self._is_earlier.clear()
            left = until - self._clock.monotonic()
            if self._earliest_us is not None:
                left = min(left, (self._earliest_us - self._clock.now_us()) / 1e6)
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._is_earlier.wait()
            except TimeoutError:
                return
