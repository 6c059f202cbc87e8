"""The recent end of a run's log, shared by everybody who watches the run."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from onbelay_server.app.waiter import Waiter
from onbelay_server.domain.run import Run
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import (
    MAX_FRAME_BYTES,
    MAX_FRAME_EVENTS,
    Appended,
    Store,
    StoredEvent,
)

MAX_TAIL_BYTES = 2 * 2**20
MAX_TAIL_EVENTS = 4096
MAX_PAGES = 8
MAX_YOUNG_RUNS = 256
MAX_YOUNG_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """Events that a reply can carry, ready to be sent."""

    frame: bytes
    """Empty when a filter left nothing."""
    last: int
    """Everything up to here is in it, or was filtered out."""


class Tail:
    """Holds what was committed lately; older events are read from the store.

    Nothing is kept per watcher: each has a position of its own and asks for what is behind it.
    """

    def __init__(self, run: Run, codec: EventCodec) -> None:
        self._codec = codec
        self.run = run
        """The row, as of the newest commit known here."""
        self._events: list[StoredEvent] = []
        self._bytes = 0
        self._pages: dict[int, Page] = {}
        """Pages made since the last commit, by the position they begin behind: watchers who keep up
        all want the same one."""
        self._full_pages: dict[int, Page] = {}
        """Pages that no commit can add to, the ones made last."""
        self._reading: dict[int, asyncio.Future[Page | None]] = {}
        self._readers: set[Waiter] = set()
        self._checked_at = float("-inf")
        self._checking = asyncio.Lock()

    @property
    def last_sequence(self) -> int:
        return self.run.last_sequence

    def begin(self, run: Run, events: list[StoredEvent]) -> None:
        """Start from the row as it was read, with the end of its log, if that is at hand."""
        self.run = run
        if events:
            self._events = events
            self._bytes = sum(len(event.body) for event in events)

    def append(self, appended: Appended) -> None:
        """Take what a commit added. A gap, made by another process, empties the tail."""
        if appended.run.last_sequence < self.run.last_sequence:
            return
        self.run = appended.run
        self._pages.clear()
        if appended.events:
            if self._events and appended.events[0].sequence != self._events[-1].sequence + 1:
                self._clear()
            self._events.extend(appended.events)
            self._bytes += sum(len(event.body) for event in appended.events)
            if self._bytes > MAX_TAIL_BYTES or len(self._events) > MAX_TAIL_EVENTS:
                self._trim()
        self.wake()

    def after(self, position: int, *, limit: int, max_bytes: int) -> Sequence[StoredEvent] | None:
        """What is held behind `position`, up to the limits; None when it must be read."""
        if position >= self.last_sequence:
            return ()
        if not self._events or self._events[0].sequence > position + 1:
            return None
        start = position + 1 - self._events[0].sequence
        page = self._events[start : start + limit]
        size = 0
        for count, event in enumerate(page):
            size += len(event.body)
            if size > max_bytes and count:
                return page[:count]
        return page

    def page(self, position: int) -> Page | None:
        """What is behind `position`, ready to be sent; None when it must be read.

        Pages end at the multiples of their size: wherever a reader begins, it soon wants the same
        pages as all others who are behind."""
        if position >= self.last_sequence:
            return Page(b"", position)
        page = self._full_pages.get(position) or self._pages.get(position)
        if page is None:
            events = self.after(position, limit=_room(position), max_bytes=MAX_FRAME_BYTES)
            if events is None:
                return None
            page = self._made(position, events)
        return page

    async def read(self, store: Store, position: int) -> Page | None:
        """As `page`, from the store: once for all who ask for it at the same time. None when the
        log is not there."""
        page = self._full_pages.get(position)
        if page is not None:
            return page
        reading = self._reading.get(position)
        if reading is None:
            reading = asyncio.ensure_future(self._read(store, position))
            self._reading[position] = reading
            reading.add_done_callback(lambda done: self._has_read(position, done))
        return await asyncio.shield(reading)

    async def _read(self, store: Store, position: int) -> Page | None:
        events = await store.events(
            self.run.id, after=position, limit=_room(position), max_bytes=MAX_FRAME_BYTES
        )
        return self._made(position, events) if events else None

    def _has_read(self, position: int, reading: asyncio.Future[Page | None]) -> None:
        del self._reading[position]
        if not reading.cancelled():
            reading.exception()  # whoever asked has it, unless all have gone

    def _made(self, position: int, events: Sequence[StoredEvent]) -> Page:
        page = Page(self._codec.frame(event.body for event in events), events[-1].sequence)
        pages = self._pages if page.last % MAX_FRAME_EVENTS else self._full_pages
        if len(pages) >= MAX_PAGES:
            del pages[next(iter(pages))]
        pages[position] = page
        return page

    @contextmanager
    def reader(self) -> Iterator[Waiter]:
        """A place among those who are woken by `wake`."""
        waiter = Waiter()
        self._readers.add(waiter)
        try:
            yield waiter
        finally:
            self._readers.discard(waiter)
            waiter.close()

    async def wait(self, reader: Waiter, position: int, timeout_seconds: float) -> None:
        """Return when the row changed or the log is longer than `position`, or in time."""
        if self.last_sequence <= position:
            # Whoever asks has seen everything up to now.
            reader.forget()
            await reader.wait(timeout_seconds)

    async def check(self, store: Store, clock: Clock, max_age_seconds: float) -> None:
        """Look whether a hint was lost, unless somebody looked just now. Raises LookupError when
        the run is gone."""
        async with self._checking:
            if clock.monotonic() - self._checked_at < max_age_seconds:
                return
            run = await store.run(self.run.id)
            if run is None:
                raise LookupError(self.run.id)
            self._checked_at = clock.monotonic()
        if run.last_sequence > self.last_sequence:
            self._clear()
            self.run = run
            self.wake()

    def wake(self) -> None:
        """Have every reader look."""
        for reader in self._readers:
            reader.wake()

    def _clear(self) -> None:
        self._events.clear()
        self._pages.clear()
        self._bytes = 0

    def _trim(self) -> None:
        """Halve it, so that trimming costs little an event."""
        keep = len(self._events) // 2
        self._events = self._events[-keep:] if keep else []
        self._bytes = sum(len(event.body) for event in self._events)


def _room(position: int) -> int:
    """How many events a page that begins behind the position has."""
    return MAX_FRAME_EVENTS - position % MAX_FRAME_EVENTS


class _YoungLogs:
    """The whole logs of the runs begun last, as long as they are short: most watches are opened
    right after the start, and need not read what was committed a moment ago."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, list[StoredEvent]] = OrderedDict()

    def append(self, run_id: str, events: Sequence[StoredEvent]) -> None:
        """Take what a commit added to a log."""
        log = self._logs.get(run_id)
        if log is None:
            if events[0].sequence != 1:
                return
            log = self._logs[run_id] = []
            if len(self._logs) > MAX_YOUNG_RUNS:
                self._logs.popitem(last=False)
        log.extend(events)
        is_whole = log[-1].sequence == len(log)
        if not is_whole or sum(len(event.body) for event in log) > MAX_YOUNG_BYTES:
            del self._logs[run_id]

    def through(self, run: Run) -> list[StoredEvent]:
        """The run's whole log, if it is here; otherwise nothing."""
        log = self._logs.get(run.id, [])
        return list(log) if log and log[-1].sequence == run.last_sequence else []


class Tails:
    """The tails of all runs that are watched in this process."""

    def __init__(self, store: Store, codec: EventCodec) -> None:
        self._store = store
        self._codec = codec
        self._tails: dict[str, tuple[Tail, int]] = {}
        self._young = _YoungLogs()

    def committed(self, appended: Sequence[Appended]) -> None:
        """Something was committed by this process."""
        for one in appended:
            entry = self._tails.get(one.run.id)
            if entry is not None:
                entry[0].append(one)
            if one.events:
                self._young.append(one.run.id, one.events)

    async def open(self, run: Run) -> Tail:
        """The run's tail; close it again. Raises LookupError when the run is gone."""
        tail, readers = self._tails.get(run.id) or (Tail(run, self._codec), 0)
        self._tails[run.id] = (tail, readers + 1)
        if not readers:
            # Registered first, read again second: a commit in between is in one of the two.
            try:
                current = await self._store.run(run.id)
                if current is None:
                    raise LookupError(run.id)
            except BaseException:
                self.close(tail)
                raise
            if current.last_sequence >= tail.last_sequence:
                tail.begin(current, self._young.through(current))
        return tail

    def close(self, tail: Tail) -> None:
        """One reader less; the last one drops the tail."""
        _, readers = self._tails[tail.run.id]
        if readers == 1:
            del self._tails[tail.run.id]
        else:
            self._tails[tail.run.id] = (tail, readers - 1)

    def wake_all(self) -> None:
        """Have every reader of every tail look."""
        for tail, _ in self._tails.values():
            tail.wake()
