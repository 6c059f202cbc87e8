"""Removes what nobody may need any more: old trees of runs, forgotten uploads and requests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import Changed, Refusal, Unavailable
from onbelay_server.domain.run import Run
from onbelay_server.ports.blobs import Blobs
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import Store

log = logging.getLogger(__name__)

_PAGE = 100
_DAY_US = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things are kept."""

    finished_days: float | None = 30.0
    """A tree of runs after its last member ended; None: for ever."""
    requests_days: float = 7.0
    """Remembered requests of what is gone."""
    sweep_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of a tree."""

    runs: int
    """How many went: all or none."""
    unfinished: Run | None = None
    """One that has not ended and so keeps the tree."""


class Sweeper:
    """Deletes in the background, a page at a time."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, retention: Retention) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._retention = retention

    async def run(self) -> None:
        """Sweep for as long as the process lives."""
        while True:
            await self._clock.sleep(self._retention.sweep_seconds)
            try:
                await self.sweep()
            except Unavailable:
                continue

    async def sweep(self) -> int:
        """One round; how many trees of runs went."""
        now_us = self._clock.now_us()
        removed = 0
        if self._retention.finished_days is not None:
            before_us = now_us - int(self._retention.finished_days * _DAY_US)
            while roots := await self._store.expired_roots(before_us, limit=_PAGE):
                gone = [await self.delete_tree(root.id) for root in roots]
                removed += sum(1 for one in gone if one.runs)
                if not any(one.runs for one in gone):
                    break
        while uploads := await self._store.expired_uploads(now_us, limit=_PAGE):
            for upload in uploads:
                await self._delete_upload(upload)
        forget_us = now_us - int(self._retention.requests_days * _DAY_US)
        while await self._store.prune_requests(forget_us, limit=_PAGE) == _PAGE:
            pass
        if removed:
            log.info("retention", extra={"action": "trees_removed", "count": removed})
        return removed

    async def delete_tree(self, root_id: str, idempotency: Idempotency | None = None) -> Deletion:
        """Remove a tree whose every run is final, with all that belongs to it. The number of runs
        is remembered for a repeated request."""
        reads = Reads(runs=[root_id], trees=[root_id], requests=keys_of(idempotency))
        contents: list[str] = []
        members = await self._members(root_id)
        for member in members:
            contents += [a.sha256 for a in await self._artifacts(member)]

        def delete(rows: Rows, now_us: int) -> Change[Deletion]:
            earlier = idempotency.answered(rows) if idempotency is not None else None
            if earlier is not None:
                return Change(result=Deletion(int(earlier)))
            leaves_first: list[Run] = sorted(rows.tree(root_id), key=_depth, reverse=True)
            unfinished = next((run for run in leaves_first if not run.state.is_final), None)
            if unfinished is not None or not leaves_first:
                return Change(result=Deletion(0, unfinished))
            count = len(leaves_first)
            put = [idempotency.remembered(str(count), now_us)] if idempotency is not None else []
            return Change(result=Deletion(count), put=put, delete=leaves_first)

        deletion = (await self._store.write(reads, delete)).result
        if deletion.runs:
            await self._release(contents)
        return deletion

    async def _members(self, root_id: str) -> list[str]:
        def look(rows: Rows, now_us: int) -> Change[list[str]]:
            return Change(result=[run.id for run in rows.tree(root_id)])

        return (await self._store.write(Reads(trees=[root_id]), look)).result

    async def _artifacts(self, run_id: str) -> list[Artifact]:
        def look(rows: Rows, now_us: int) -> Change[list[Artifact]]:
            return Change(result=rows.artifacts_of(run_id))

        return (await self._store.write(Reads(artifacts_of=[run_id]), look)).result

    async def _delete_upload(self, upload: Artifact) -> None:
        def delete(rows: Rows, now_us: int) -> Change[None]:
            current = rows.artifact(upload.id)
            if current is None or current.run_id is not None:
                raise Changed("a run took it")
            return Change(result=None, delete=[current])

        try:
            await self._store.write(Reads(artifacts=[upload.id]), delete)
        except Refusal:
            return
        await self._release([upload.sha256])

    async def _release(self, sha256s: Sequence[str]) -> None:
        """Forget contents that no row names any more."""
        in_use = await self._store.blobs_in_use(sha256s)
        for sha256 in set(sha256s) - in_use:
            await self._blobs.delete(sha256)


def _depth(run: Run) -> int:
    return run.depth
