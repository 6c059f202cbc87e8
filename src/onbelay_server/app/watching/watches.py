"""WatchRun, ListRunEvents and WaitRun: history after a position, then what comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from onbelay_server.app.visibility import seen, unknown_run
from onbelay_server.app.waiter import Waiter
from onbelay_server.app.watching.tail import Page, Tail, Tails
from onbelay_server.domain.error import OutOfRange
from onbelay_server.domain.event import ApprovalRequested, OperationStarted, StateChanged
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import (
    MAX_FRAME_BYTES,
    MAX_FRAME_EVENTS,
    Frame,
    Store,
    StoredEvent,
)

MAX_LIST_BYTES = 1024 * 1024
MAX_SEALED_BYTES = 1024 * 1024
"""Ready-made frames that are read at a time."""


_LOOK_AGAIN_SECONDS = 0.05


class StreamEnd(StrEnum):
    """Why a stream ended by our hand."""

    FINISHED = "FINISHED"
    RECONNECT = "RECONNECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a watcher begins, and what it wants to see."""

    after: int = 0
    last: int | None = None
    """Instead of `after`: so many events before the end."""
    kinds: Sequence[int] = ()
    except_kinds: Sequence[int] = ()
    heartbeat_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPage:
    """One reply of a watch."""

    complete_through: int
    frame: bytes = b""
    """The events, ready to be sent."""
    run: Run | None = None
    """Set in the first reply, when the state changed, and in the last."""
    end: StreamEnd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """One page of ListRunEvents."""

    frame: bytes
    """The events, ready to be sent."""
    complete_through: int
    run: Run


class Draining(Exception):
    """The process drains: the stream said RECONNECT and ends UNAVAILABLE."""


class Watches:
    """Follows runs."""

    def __init__(
        self,
        store: Store,
        tails: Tails,
        clock: Clock,
        codec: EventCodec,
        *,
        poll_seconds: float = 2.0,
        max_age_seconds: float = 3000.0,
    ) -> None:
        self._store = store
        self._tails = tails
        self._clock = clock
        self._codec = codec
        self._asking_kinds = [codec.number(kind) for kind in (ApprovalRequested, OperationStarted)]
        self._moving_kinds = [codec.number(StateChanged)]
        self._poll_seconds = poll_seconds
        self._max_age_seconds = max_age_seconds
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Have every stream end with RECONNECT, soon."""
        self._draining.set()
        self._tails.wake_all()

    async def watch(
        self, caller: Principal, run_id: str, where: Position
    ) -> AsyncGenerator[WatchPage, None]:
        """History after the position, then live; no gap, no duplicate. Ends after the last event.

        Raises NotFound, OutOfRange (metadata: oldest_sequence, last_sequence)."""
        run = seen(await self._store.run(run_id), caller)
        position = _begin(run, where)
        ends_at = self._clock.monotonic() + self._max_age_seconds
        async with self._tail(run) as (tail, waiter):
            # What was told is noted before it is sent: the run moves on while the reply leaves.
            state, sent_at = tail.run.state, self._clock.monotonic()
            yield WatchPage(run=tail.run, complete_through=position)
            reader = _Reader(self._store, self._codec, run, where)
            while True:
                page = await reader.next(tail, position)
                if page is None:
                    # The log is longer and yet empty: the run is being deleted.
                    await self._check(tail, 0.0)
                    await self._clock.sleep(_LOOK_AGAIN_SECONDS)
                    continue
                if page.last > position:
                    position = page.last
                    is_moved = tail.run.state is not state
                    if page.frame or is_moved:
                        state, sent_at = tail.run.state, self._clock.monotonic()
                        yield WatchPage(
                            frame=page.frame,
                            run=tail.run if is_moved else None,
                            complete_through=position,
                        )
                    continue
                now = self._clock.monotonic()
                if tail.run.state.is_final:
                    end, run_at_end = StreamEnd.FINISHED, tail.run
                    yield WatchPage(run=run_at_end, complete_through=position, end=end)
                    return
                if self._draining.is_set() or now >= ends_at:
                    yield WatchPage(complete_through=position, end=StreamEnd.RECONNECT)
                    raise Draining
                if now - sent_at >= where.heartbeat_seconds:
                    sent_at = now
                    yield WatchPage(complete_through=position)
                await self._pause(tail, waiter, position, sent_at + where.heartbeat_seconds - now)

    async def list(
        self,
        caller: Principal,
        run_id: str,
        where: Position,
        *,
        limit: int,
        wait_seconds: float,
    ) -> EventPage:
        """A page of the log, waiting for it for a while when there is nothing yet."""
        run = seen(await self._store.run(run_id), caller)
        position = _begin(run, where)
        until = self._clock.monotonic() + wait_seconds
        async with self._tail(run) as (tail, waiter):
            while True:
                # As of one moment: the run moves on while its log is read.
                current, through = tail.run, tail.last_sequence
                events = await self._store.events(
                    run_id,
                    after=position,
                    limit=limit,
                    max_bytes=MAX_LIST_BYTES,
                    kinds=where.kinds,
                    except_kinds=where.except_kinds,
                    through=through,
                )
                left = until - self._clock.monotonic()
                if events or current.state.is_final or left <= 0 or self._draining.is_set():
                    is_cut = len(events) == limit or sum(len(e.body) for e in events) >= (
                        MAX_LIST_BYTES
                    )
                    if events and is_cut:
                        through = events[-1].sequence
                    frame = self._codec.frame(event.body for event in events)
                    return EventPage(frame=frame, complete_through=through, run=current)
                await self._pause(tail, waiter, through, left)

    async def wait(
        self,
        caller: Principal,
        run_id: str,
        *,
        for_attention: bool,
        after_sequence: int,
        timeout_seconds: float,
    ) -> tuple[Run, bool]:
        """The run once it ended, or needs somebody; and whether the time ran out first.

        With `for_attention` it needs somebody when it is held, or waits for an approval, an answer
        or an operation. What came about at or before `after_sequence` does not count."""
        run = seen(await self._store.run(run_id), caller)
        until = self._clock.monotonic() + timeout_seconds
        async with self._tail(run) as (tail, waiter):
            while True:
                current, through = tail.run, tail.last_sequence
                if current.state.is_final:
                    return current, False
                if for_attention and await self._needs_somebody(current, after_sequence):
                    # Read after the question was found, so that its last_sequence covers it.
                    return await self._store.run(run_id) or current, False
                left = until - self._clock.monotonic()
                if left <= 0 or self._draining.is_set():
                    return current, True
                await self._pause(tail, waiter, through, left)

    async def _needs_somebody(self, run: Run, after_sequence: int) -> bool:
        """Whether a person or an outside system must act, and since after that event."""
        if run.state is RunState.PAUSED:
            since = self._moving_kinds
        else:
            waits = (await self._store.waits([run.id])).get(run.id, [])
            if not any(wait.approval_id or wait.operation_id for wait in waits):
                return False
            since = self._asking_kinds
        if after_sequence <= 0:
            return True
        page = await self._store.events(
            run.id, after=after_sequence, limit=1, max_bytes=1, kinds=since
        )
        return bool(page)

    @asynccontextmanager
    async def _tail(self, run: Run) -> AsyncGenerator[tuple[Tail, Waiter], None]:
        try:
            tail = await self._tails.open(run)
        except LookupError:
            raise unknown_run() from None
        try:
            with tail.reader() as waiter:
                yield tail, waiter
        finally:
            self._tails.close(tail)

    async def _pause(self, tail: Tail, waiter: Waiter, position: int, seconds: float) -> None:
        """Wait for more; look by ourselves now and then, because hints get lost."""
        await tail.wait(waiter, position, max(0.0, min(seconds, self._poll_seconds)))
        if tail.last_sequence <= position:
            await self._check(tail, self._poll_seconds)

    async def _check(self, tail: Tail, max_age_seconds: float) -> None:
        try:
            await tail.check(self._store, self._clock, max_age_seconds)
        except LookupError:
            raise unknown_run() from None


class _Reader:
    """Reads one watch's pages: from the tail, from sealed frames, from the log."""

    def __init__(self, store: Store, codec: EventCodec, run: Run, where: Position) -> None:
        self._store = store
        self._codec = codec
        self._where = where
        self._is_whole = not where.kinds and not where.except_kinds
        self._frames: deque[Frame] = deque()
        self._may_be_sealed = self._is_whole and run.last_sequence > MAX_FRAME_EVENTS

    async def next(self, tail: Tail, position: int) -> Page | None:
        """What is behind the position, if anything is; None when it should be there and is not."""
        if self._frames:
            frame = self._frames.popleft()
            return Page(frame.data, frame.last)
        if self._is_whole:
            page = tail.page(position)
            if page is not None:
                return page
        if self._may_be_sealed:
            sealed = await self._store.frames(
                tail.run.id, after=position, limit_bytes=MAX_SEALED_BYTES
            )
            self._frames.extend(sealed)
            if self._frames:
                return await self.next(tail, position)
            self._may_be_sealed = False  # what is not sealed here is not sealed behind here
        if self._is_whole:
            return await tail.read(self._store, position)
        return await self._wanted_of(tail, position)

    async def _wanted_of(self, tail: Tail, position: int) -> Page | None:
        """The next page's worth of events, those that this watch wants."""
        events = tail.after(position, limit=MAX_FRAME_EVENTS, max_bytes=MAX_FRAME_BYTES)
        if events is None:
            events = await self._store.events(
                tail.run.id, after=position, limit=MAX_FRAME_EVENTS, max_bytes=MAX_FRAME_BYTES
            )
            if not events:
                return None
        if not events:
            return Page(b"", position)
        shown = _wanted(events, self._where)
        return Page(self._codec.frame(event.body for event in shown), events[-1].sequence)


def _begin(run: Run, where: Position) -> int:
    """The position to begin after. Raises OutOfRange when it is not in the kept log."""
    if where.last is not None:
        return max(run.oldest_sequence - 1, run.last_sequence - where.last)
    is_lost = 0 < where.after < run.oldest_sequence - 1
    if where.after > run.last_sequence or is_lost:
        raise OutOfRange(
            f"the log holds {run.oldest_sequence} to {run.last_sequence}",
            metadata={
                "oldest_sequence": str(run.oldest_sequence),
                "last_sequence": str(run.last_sequence),
            },
        )
    return max(where.after, run.oldest_sequence - 1)


def _wanted(page: Sequence[StoredEvent], where: Position) -> Sequence[StoredEvent]:
    if where.kinds:
        return [event for event in page if event.kind in where.kinds]
    if where.except_kinds:
        return [event for event in page if event.kind not in where.except_kinds]
    return page
