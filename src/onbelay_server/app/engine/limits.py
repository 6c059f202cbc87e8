"""How long a run may take, and how much it may record."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onbelay_server.domain.agent import Limits
from onbelay_server.domain.run import Run, RunError
from onbelay_server.domain.state import FailureReason

WARN_SHARE = 0.8
"""Of the history a run may have, when its log warns."""


@dataclass(slots=True)
class Watchdog:
    """Knows when a run that is being driven has taken too long. Times are monotonic seconds.

    Only running counts: nobody drives a run that waits, and none of its marks is set before its
    copy has a place.
    """

    limits: Limits
    active_before_seconds: float
    has_spoken: bool
    """Whether the agent has said or asked anything yet, in any epoch."""
    begun_at: float = math.inf
    heard_at: float = math.inf

    @classmethod
    def of(cls, run: Run, limits: Limits) -> Watchdog:
        """For a run that was claimed just now and has no copy yet."""
        return cls(
            limits=limits,
            active_before_seconds=run.active_us / 1e6,
            has_spoken=bool(run.code_python),
        )

    @property
    def has_begun(self) -> bool:
        return self.begun_at < math.inf

    def begin(self, now: float) -> None:
        """The copy has a place."""
        self.begun_at = self.heard_at = now

    def hear(self, now: float, *, is_word: bool) -> None:
        """The copy gave a sign of life; a word is more than a pulse."""
        self.heard_at = now
        self.has_spoken |= is_word

    @property
    def total_at(self) -> float:
        return self.begun_at + self.limits.total_seconds - self.active_before_seconds

    @property
    def first_response_at(self) -> float | None:
        return None if self.has_spoken else self.begun_at + self.limits.first_response_seconds

    @property
    def idle_at(self) -> float:
        return self.heard_at + self.limits.idle_seconds

    @property
    def next_at(self) -> float:
        """The earliest of its marks."""
        marks = [self.total_at, self.idle_at]
        if self.first_response_at is not None:
            marks.append(self.first_response_at)
        return min(marks)

    def breach(self, now: float) -> RunError | None:
        """Which limit was passed, but for the pulse, which has its own consequences."""
        if now >= self.total_at:
            return _timed_out(f"it ran for {self.limits.total_seconds:g} s: its total limit")
        if self.first_response_at is not None and now >= self.first_response_at:
            return _timed_out(f"no first response within {self.limits.first_response_seconds:g} s")
        return None

    def is_silent(self, now: float) -> bool:
        """Whether the agent's loop has given no pulse for too long."""
        return now >= self.idle_at

    def silence(self) -> RunError:
        """What a run fails with whose own code blocks its loop."""
        return _timed_out(f"no pulse for {self.limits.idle_seconds:g} s: its code blocks the loop")


@dataclass(slots=True)
class StopClock:
    """How far a committed stop has come. Times are monotonic seconds."""

    grace_until: float
    """Until then calls in flight may finish."""
    kill_at: float
    """Then what still lives is killed."""
    is_grace_over: bool = False

    @classmethod
    def of(cls, limits: Limits, now: float) -> StopClock:
        """For a stop that is heard of now."""
        grace_until = now + limits.grace_seconds
        return cls(grace_until, grace_until + limits.kill_seconds)

    @property
    def next_at(self) -> float:
        """The next of its marks."""
        return self.kill_at if self.is_grace_over else self.grace_until


@dataclass(slots=True)
class History:
    """How much of its log a run has used."""

    limits: Limits
    events: int = 0
    log_bytes: int = 0
    has_warned: bool = False

    def add(self, events: int, log_bytes: int) -> None:
        """The log has grown."""
        self.events += events
        self.log_bytes += log_bytes

    @property
    def share(self) -> float:
        """How much is used, 1.0 being all."""
        return max(self.events / self.limits.max_events, self.log_bytes / self.limits.max_log_bytes)

    def breach(self) -> RunError | None:
        """Set once all is used."""
        if self.share < 1.0:
            return None
        return RunError(
            reason=FailureReason.HISTORY_LIMIT,
            message=(
                f"its log holds {self.events} events and {self.log_bytes} bytes; "
                f"{self.limits.max_events} and {self.limits.max_log_bytes} are allowed"
            ),
        )

    def warning(self) -> str | None:
        """Once, when most is used."""
        if self.has_warned or self.share < WARN_SHARE:
            return None
        self.has_warned = True
        return (
            f"the log has reached {self.share:.0%} of its limit ({self.events} of "
            f"{self.limits.max_events} events, {self.log_bytes} of {self.limits.max_log_bytes} "
            "bytes): the run ends when it is reached"
        )


def _timed_out(message: str) -> RunError:
    return RunError(reason=FailureReason.TIMED_OUT, message=message)
