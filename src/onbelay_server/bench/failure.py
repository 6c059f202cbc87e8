"""How a measurement fails."""

from __future__ import annotations


class BenchFailed(Exception):
    """A measurement did not come about; the text says which and why."""
