"""WatchRuns: a list of runs that keeps itself current."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from onbelay_server.app.approvals import Approvals, ApprovalView
from onbelay_server.app.visibility import sees
from onbelay_server.app.watching.announcer import Announcer
from onbelay_server.app.watching.watches import Draining, StreamEnd
from onbelay_server.domain.error import NotFound
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import ApprovalFilter, RunFilter, Store

MAX_LISTED = 500
_MAX_NOTED = 2000
_PAGE = 100
_QUIET_SECONDS = 0.1
"""Changes that come together are told together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """One reply of a watched list."""

    runs: Sequence[Run] = ()
    left_run_ids: Sequence[str] = ()
    approvals: Sequence[ApprovalView] = ()
    """As the caller sees them: those to decide, and told ones that no longer are."""
    caught_up: bool = False
    end: StreamEnd | None = None


class _Notes:
    """The runs that changed since a watcher last looked: each once, however often it changed."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self.is_incomplete = False
        self.changed = asyncio.Event()

    def hear(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if len(self._runs) < _MAX_NOTED or run.id in self._runs:
                self._runs[run.id] = run
            else:
                self.is_incomplete = True
        self.changed.set()

    def take(self) -> tuple[dict[str, Run], bool]:
        runs, self._runs = self._runs, {}
        incomplete, self.is_incomplete = self.is_incomplete, False
        self.changed.clear()
        return runs, incomplete


class ListWatches:
    """Follows lists. Level-triggered: a watcher is told how things are, not each step there."""

    def __init__(
        self,
        store: Store,
        announcer: Announcer,
        approvals: Approvals,
        clock: Clock,
        *,
        poll_seconds: float = 5.0,
        max_age_seconds: float = 3000.0,
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._approvals = approvals
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._max_age_seconds = max_age_seconds
        self._is_draining = False
        self._open: set[_Notes] = set()

    def drain(self) -> None:
        """Have every stream end with RECONNECT, soon."""
        self._is_draining = True
        for notes in self._open:
            notes.changed.set()

    async def watch(
        self, caller: Principal, which: RunFilter, heartbeat_seconds: float
    ) -> AsyncGenerator[ListPage, None]:
        """Every match (the newest 500) and what the caller may decide, then what changes."""
        notes = _Notes()
        self._open.add(notes)
        unhear = self._announcer.on_change(notes.hear)
        try:
            watcher = _Watcher(self._store, self._approvals, caller, which)
            for page in await watcher.refresh():
                yield page
            yield ListPage(caught_up=True)
            ends_at = self._clock.monotonic() + self._max_age_seconds
            async with aclosing(
                self._follow(watcher, notes, heartbeat_seconds, ends_at)
            ) as following:
                async for page in following:
                    yield page
        finally:
            unhear()
            self._open.discard(notes)

    async def _follow(
        self, watcher: _Watcher, notes: _Notes, heartbeat_seconds: float, ends_at: float
    ) -> AsyncGenerator[ListPage, None]:
        sent_at = polled_at = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            if self._is_draining or now >= ends_at:
                yield ListPage(end=StreamEnd.RECONNECT)
                raise Draining
            runs, is_incomplete = notes.take()
            pages: list[ListPage] = []
            if is_incomplete or now - polled_at >= self._poll_seconds:
                polled_at = now
                pages = await watcher.refresh()
            elif runs:
                pages = await watcher.changed(runs)
            for page in pages:
                sent_at = now
                yield page
            if now - sent_at >= heartbeat_seconds:
                sent_at = now
                yield ListPage()
            await self._pause(notes, min(heartbeat_seconds, self._poll_seconds))

    async def _pause(self, notes: _Notes, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await notes.changed.wait()
        except TimeoutError:
            return
        if not self._is_draining:
            await self._clock.sleep(_QUIET_SECONDS)


class _Watcher:
    """What one watcher has been told."""

    def __init__(
        self, store: Store, approvals: Approvals, caller: Principal, which: RunFilter
    ) -> None:
        self._store = store
        self._approvals = approvals
        self._caller = caller
        self._which = which
        self._told: dict[str, int] = {}
        self._asked: set[str] = set()

    async def refresh(self) -> list[ListPage]:
        """What differs between the database and what was told."""
        runs = await self._store.list_runs(
            self._caller.viewer, self._which, after=None, limit=MAX_LISTED
        )
        current = {run.id: run for run in runs}
        left = [run_id for run_id in self._told if run_id not in current]
        news = [run for run in runs if self._told.get(run.id) != run.update_us]
        self._told = {run.id: run.update_us for run in runs}
        return self._pages(news, left, await self._decidable())

    async def changed(self, runs: dict[str, Run]) -> list[ListPage]:
        """What the noted changes mean for this list."""
        news, left = [], []
        for run in runs.values():
            if self._matches(run):
                news.append(run)
                self._told[run.id] = run.update_us
            elif self._told.pop(run.id, None) is not None:
                left.append(run.id)
        is_mine = any(run.tenant == self._caller.tenant for run in runs.values())
        return self._pages(news, left, await self._decidable() if is_mine else [])

    def _matches(self, run: Run) -> bool:
        return self._which.matches(run) and sees(self._caller, run)

    async def _decidable(self) -> list[ApprovalView]:
        """Approvals the caller may decide that were not told, or told ones that have changed."""
        page = await self._approvals.list_approvals(
            self._caller, ApprovalFilter(), decidable_only=True, after=None, limit=MAX_LISTED
        )
        open_ids = {one.approval.id for one in page.approvals}
        news = [one for one in page.approvals if one.approval.id not in self._asked]
        for approval_id in sorted(self._asked - open_ids):
            try:
                news.append(await self._approvals.get(self._caller, approval_id))
            except NotFound:
                continue  # Its run was deleted, which the list of runs says.
        self._asked = open_ids
        return news

    @staticmethod
    def _pages(
        runs: Sequence[Run], left: Sequence[str], approvals: Sequence[ApprovalView]
    ) -> list[ListPage]:
        pages = [ListPage(runs=runs[start : start + _PAGE]) for start in range(0, len(runs), _PAGE)]
        if left or approvals:
            pages.append(ListPage(left_run_ids=left, approvals=approvals))
        return pages
