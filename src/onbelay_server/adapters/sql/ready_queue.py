"""The QUEUED runs of a database that one process owns, by tenant and ready time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from itertools import islice

from onbelay_server.adapters.sql.rows import Row
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState


class ReadyQueue:
    """Answers what is claimable without asking the database. It knows nothing until it is loaded,
    and forgets everything by `clear`; between the two it hears of every commit."""

    def __init__(self) -> None:
        self.is_loaded = False
        self._tenants: dict[str, list[tuple[int, str]]] = {}
        """(ready time, run id), in order; no empty list."""
        self._places: dict[str, tuple[str, int]] = {}
        """Tenant and ready time of each run."""

    def load(self, rows: Iterable[Row]) -> None:
        """Take up (run id, tenant, ready time) of all QUEUED runs as they were last committed."""
        self.clear()
        for run_id, tenant, ready_us in rows:
            self._tenants.setdefault(tenant, []).append((ready_us, run_id))
            self._places[run_id] = (tenant, ready_us)
        for queue in self._tenants.values():
            queue.sort()
        self.is_loaded = True

    def put(self, run: Run) -> None:
        """A run as it was committed."""
        if not self.is_loaded:
            return
        place = (run.tenant, run.ready_us) if run.state is RunState.QUEUED else None
        if self._places.get(run.id) == place:
            return
        self.drop(run.id)
        if place is not None:
            self._places[run.id] = place
            insort(self._tenants.setdefault(run.tenant, []), (run.ready_us, run.id))

    def drop(self, run_id: str) -> None:
        place = self._places.pop(run_id, None)
        if place is None:
            return
        tenant, ready_us = place
        queue = self._tenants[tenant]
        del queue[bisect_left(queue, (ready_us, run_id))]
        if not queue:
            del self._tenants[tenant]

    def clear(self) -> None:
        self.is_loaded = False
        self._tenants.clear()
        self._places.clear()

    def claimable(self, now_us: int, limit: int) -> list[str]:
        """Ids of runs whose ready time has come, the oldest of each tenant in turn."""
        turns: list[tuple[int, int, str]] = []
        for queue in self._tenants.values():
            ready = min(bisect_right(queue, (now_us + 1,)), limit)
            turns += (
                (turn, ready_us, run_id)
                for turn, (ready_us, run_id) in enumerate(islice(queue, ready))
            )
        return [run_id for _, _, run_id in sorted(turns)[:limit]]

    def next_ready_us(self) -> int | None:
        return min((queue[0][0] for queue in self._tenants.values()), default=None)
