"""How long an agent's runs may take, and how much they may record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

from onbelay_agent.errors import InvalidDefinition

OnCodeChange = Literal["hold", "fail", "restart"]
"""What becomes of a run whose journal today's code does not fit: it is held until the code fits,
fails, or begins anew if nothing outside was recorded (else it is held)."""

_DAY = 86_400.0
_RANGES: dict[str, tuple[float, float]] = {
    "grace_seconds": (0, 600),
    "kill_seconds": (0, 600),
    "total_seconds": (1, 365 * _DAY),
    "first_response_seconds": (1, _DAY),
    "idle_seconds": (1, 3_600),
    "tool_seconds": (1, _DAY),
    "approval_seconds": (10, 30 * _DAY),
    "wait_seconds": (1, 30 * _DAY),
    "max_attempts": (1, 100),
    "max_events": (100, 10_000_000),
    "max_log_bytes": (2**20, 2**36),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of each run of an agent. None: what the service says of agents that name none.

    Time counts while the run is being executed: waiting for people and outside systems does not."""

    grace_seconds: float = 5.0
    """After a stop, for calls in flight."""
    kill_seconds: float = 3.0
    """After that, until a child that has not ended is killed."""
    total_seconds: float | None = None
    """Of running, all epochs together."""
    first_response_seconds: float | None = None
    """Until the agent has said or asked anything."""
    idle_seconds: float | None = None
    """Without a pulse of the agent's loop."""
    tool_seconds: float | None = None
    """For one tool call."""
    approval_seconds: float | None = None
    """For an approval or a question to be decided."""
    wait_seconds: float | None = None
    """The longest single wait."""
    max_attempts: int | None = None
    """Attempts without a newly recorded call."""
    max_events: int | None = None
    """In the log of a run."""
    max_log_bytes: int | None = None
    """Of the log of a run."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            lowest, highest = _RANGES[field.name]
            if value is not None and not lowest <= value <= highest:
                raise InvalidDefinition(
                    f"limits.{field.name} must lie between {lowest:g} and {highest:g}"
                )

    def declared(self) -> dict[str, float]:
        """What is set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}
