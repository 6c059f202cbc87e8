"""Time, as something that can be set by hand."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored and shown, monotonic time for what must not jump."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch. May step, also backwards."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never steps; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` of this clock have passed."""
        ...
