"""Waiting for a sign or a time, thousands of times a second."""

from __future__ import annotations

import asyncio
from typing import Final

_EARLY_SECONDS: Final = 0.001
"""A loop that counts in milliseconds may ring so early."""


class Waiter:
    """Lets one task wait until it is given a sign, or a time has passed.

    The timer is kept from one wait to the next for as long as it is early enough: most waits end
    long before theirs, and setting one costs more than the rest of a wait.
    """

    __slots__ = ("_future", "_has_sign", "_timer", "_timer_at")

    def __init__(self) -> None:
        self._has_sign = False
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def wake(self) -> None:
        """Give the sign; when nobody waits, it is for the next wait."""
        self._has_sign = True
        self._ring()

    def forget(self) -> None:
        """Take back a sign that nobody has waited for: what it says is known."""
        self._has_sign = False

    async def wait(self, seconds: float) -> bool:
        """Whether there was a sign before so many seconds had passed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._has_sign:
            if until - loop.time() < _EARLY_SECONDS:
                return False
            if self._timer is None or self._timer_at > until:
                self.close()
                self._timer, self._timer_at = loop.call_at(until, self._expire), until
            self._future = loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._has_sign = False
        return True

    def close(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._ring()

    def _ring(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
