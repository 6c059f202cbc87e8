"""Logs in the background: sealing what is written, and removing what was deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from onbelay_server.adapters.sealing import joined, pack
from onbelay_server.adapters.sql import tables
from onbelay_server.adapters.sql.database import Database, Statement, Steps
from onbelay_server.adapters.sql.log_queries import LogQueries
from onbelay_server.adapters.sql.rows import Row
from onbelay_server.adapters.sql.writer import Writer
from onbelay_server.domain.error import Unavailable
from onbelay_server.domain.run import Run
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import Frame, StoredEvent

FRAMES_A_STEP = 8
"""Frames that one transaction writes: about 200 KB of usual events."""
MOST_FRAMES = 64
MOST_STEP_BYTES = 2 * 2**20
"""What one step of sealing reads, roughly."""
MOST_REMOVED_EVENTS = 1_000
MOST_REMOVED_BYTES = 256 * 1024
REMOVING_SHARE = 0.5
"""Of the time while a log is being removed: the rest is for those who write."""
AWAY_SECONDS = 1.0

_Make = Callable[[], Steps[bool]]
_MakeNothing = Callable[[], Steps[None]]


class Logs:
    """The logs of one database. Every step is a short transaction in the writer's queue, so that
    no unit waits for more than one of them."""

    def __init__(self, database: Database, writer: Writer, codec: EventCodec) -> None:
        self._database = database
        self._writer = writer
        self._codec = codec
        self.queries = LogQueries(database.sql)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Remove in the background what this process, or one before it, marked."""
        if self._task is None:
            # What an earlier process had not finished is found at once.
            self._writer.removed.set()
            self._task = asyncio.get_running_loop().create_task(self._remove(), name="store logs")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---- sealing -----------------------------------------------------------------------------

    async def seal(self, run: Run, through: int | None) -> int:
        """See Store.seal."""
        end = run.last_sequence if through is None else min(through, run.last_sequence)
        with_rest = run.state.is_final and end == run.last_sequence
        position = await self._writer.run(lambda: self._enlisted(run.id), _ignore)
        made = 0
        while position is not None and position < end:
            frames = await self._packed(run.id, position, end, with_rest)
            if not frames:
                break
            is_written = await self._writer.run(self._sealing(run.id, position, frames), _ignore)
            if not is_written:
                return made
            made += len(frames)
            position = frames[-1].last
        if with_rest:
            await self._writer.run(lambda: self._finished(run.id), _ignore)
        return made

    async def _packed(self, run_id: str, after: int, end: int, with_rest: bool) -> list[Frame]:
        limit = FRAMES_A_STEP * 128
        statement = self.queries.events(run_id, after=after, through=end, limit=limit)
        rows = await self._database.fetch(statement, max_bytes=MOST_STEP_BYTES)
        events = list(map(StoredEvent._make, rows))
        is_end = bool(events) and events[-1].sequence == end
        return pack(events, self._codec, with_rest=with_rest and is_end)

    def _enlisted(self, run_id: str) -> Steps[int | None]:
        """How far the log is sealed; None when the run is gone."""
        yield self.queries.enlist([run_id])
        rows = yield self.queries.sealed(run_id)
        found: int | None = rows[0][0] if rows else None
        return found

    def _sealing(self, run_id: str, position: int, frames: Sequence[Frame]) -> _Make:
        def steps() -> Steps[bool]:
            # Only one of several processes moves a log's mark on, and only while its run is there.
            moved = yield self.queries.advance(run_id, position, frames[-1].last)
            if not moved:
                return False
            rows = [(run_id, frame.first, frame.last, frame.data) for frame in frames]
            # Not by `yield from`: a list cannot be sent the rows.
            for statement in self._database.sql.insert(tables.segments, rows):  # noqa: UP028
                yield statement
            return True

        return steps

    def _finished(self, run_id: str) -> Steps[None]:
        yield self.queries.delist(run_id)

    async def frames(self, run_id: str, *, after: int, limit_bytes: int) -> list[Frame]:
        """See Store.frames."""
        statement = self.queries.frames(run_id, after=after, limit=MOST_FRAMES)
        rows = await self._database.fetch(statement, max_bytes=limit_bytes)
        return joined(list(map(Frame._make, rows)), after, self._codec)

    async def unsealed(self, limit: int) -> list[str]:
        """See Store.unsealed."""
        rows = await self._database.fetch(self.queries.unsealed(limit))
        return [row[0] for row in rows]

    # ---- removing ----------------------------------------------------------------------------

    async def _remove(self) -> None:
        removed, loop = self._writer.removed, asyncio.get_running_loop()
        while True:
            await removed.wait()
            removed.clear()
            try:
                begin = loop.time()
                while await self._remove_some():
                    await asyncio.sleep((loop.time() - begin) * (1 / REMOVING_SHARE - 1))
                    begin = loop.time()
            except Unavailable:
                await asyncio.sleep(AWAY_SECONDS)
                removed.set()

    async def _remove_some(self) -> bool:
        """One step; whether there may be more."""
        marked = await self._database.fetch(self.queries.marked())
        if not marked:
            return False
        run_id = marked[0][0]
        for measure, delete in (
            (self.queries.event_sizes(run_id, MOST_REMOVED_EVENTS), self.queries.drop_events),
            (self.queries.segment_sizes(run_id, MOST_FRAMES), self.queries.drop_segments),
        ):
            rows = await self._database.fetch(measure)
            if rows:
                statement = delete(run_id, _first_step(rows))
                await self._writer.run(_alone(statement), _ignore)
                return True
        await self._writer.run(_alone(self.queries.unmark(run_id)), _ignore)
        return True


def _first_step(rows: Sequence[Row]) -> int:
    """The sequence through which rows of (sequence, size) make one step."""
    total = 0
    for sequence, size in rows:
        total += size
        if total >= MOST_REMOVED_BYTES:
            return int(sequence)
    return int(rows[-1][0])


def _alone(statement: Statement) -> _MakeNothing:
    def steps() -> Steps[None]:
        yield statement

    return steps


def _ignore(_result: object) -> None:
    """Nothing of it is kept in memory."""
