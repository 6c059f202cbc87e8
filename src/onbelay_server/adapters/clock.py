"""The machine's clocks."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Clock over the operating system's."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
