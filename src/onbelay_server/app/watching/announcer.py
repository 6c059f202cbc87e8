"""What follows a commit: the hints, to everybody in this process and beyond."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onbelay_server.domain.event import (
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
    ApprovalUndone,
    ApprovalVoided,
    RunStarted,
    StateChanged,
)
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import Appended
from onbelay_server.ports.wakeup import Wakeup

_LISTED = (
    RunStarted,
    StateChanged,
    ApprovalRequested,
    ApprovalDecided,
    ApprovalUndone,
    ApprovalExpired,
    ApprovalVoided,
)

HearCommits = Callable[[Sequence[Appended]], None]
HearRuns = Callable[[Sequence[Run]], None]


class Announcer:
    """Hears every commit of this process and tells those whom it may concern."""

    def __init__(self, codec: EventCodec, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._listed = frozenset(codec.number(kind) for kind in _LISTED)
        self._commits: list[HearCommits] = []
        self._runs: list[HearRuns] = []

    def on_commit(self, hear: HearCommits) -> None:
        """Hear everything that was appended."""
        self._commits.append(hear)

    def on_change(self, hear: HearRuns) -> Callable[[], None]:
        """Hear of runs whose place in a list may have changed. Returns what ends it."""
        self._runs.append(hear)
        return lambda: self._runs.remove(hear)

    def committed(self, appended: Sequence[Appended]) -> None:
        """The store's hook, on the loop that serves."""
        for hear in self._commits:
            hear(appended)
        topics: set[str] = set()
        changed: list[Run] = []
        for one in appended:
            topics.add(one.run.id)
            kinds = {event.kind for event in one.events}
            if not kinds or kinds & self._listed:
                changed.append(one.run)
            if one.run.state is RunState.QUEUED:
                topics.add("ready")
        if changed:
            topics.add("list")
            for hear_runs in list(self._runs):
                hear_runs(changed)
        self._wakeup.wake(topics)
