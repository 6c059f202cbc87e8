"""What somebody says to a run while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. Its row goes when the agent has taken it: the log keeps what was said."""

    id: str
    run_id: str
    number: int
    """Its place among the run's messages, from 1."""
