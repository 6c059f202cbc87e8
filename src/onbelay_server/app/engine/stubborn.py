"""Runs that cost this process a thread whenever they wait."""

from __future__ import annotations


class Stubborn:
    """Runs whose suspended copies left threads of this process behind.

    Each thread is lost to the process, and a run that waits often would use them all up. Counted
    apart from the run's attempts, which every new step starts anew."""

    MOST = 2

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, run_id: str) -> None:
        """Another one of the run's copies had to be killed."""
        self._counts[run_id] = self._counts.get(run_id, 0) + 1

    def objection(self, run_id: str) -> str | None:
        """Why the run is not to be executed here again, or None."""
        count = self._counts.get(run_id, 0)
        if count < self.MOST:
            return None
        return f"{count} of its copies did not end when they were suspended and had to be killed"

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        self._counts.pop(run_id, None)
