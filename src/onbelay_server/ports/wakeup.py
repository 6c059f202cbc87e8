"""Hints that something was committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

Hear = Callable[[frozenset[str]], None]
"""Called on the loop that listens, with topics. Must not block or raise."""


class Wakeup(Protocol):
    """Carries hints between those who commit and those who wait, in this process or beyond.

    A hint may be lost, doubled, late or out of order: whoever waits also looks by itself from time
    to time, so that a lost hint costs time and nothing else. Topics: a run's id (its log or row
    changed), `ready` (a run may be claimable), `list` (some run or approval changed; for lists that
    are watched).
    """

    def wake(self, topics: Iterable[str]) -> None:
        """Send a hint, after the commit. Never blocks, never fails."""
        ...

    def listen(self, hear: Hear) -> Callable[[], None]:
        """Hear every hint from now on. Returns what ends it."""
        ...
