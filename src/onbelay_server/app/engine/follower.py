"""Follows the log of a run that is driven here, and tells its copy what is recorded."""

from __future__ import annotations

from collections.abc import Callable

from onbelay_agent.protocol import Begun, FromHost, Recorded
from onbelay_server.app.engine.casefile import CaseFile
from onbelay_server.app.engine.limits import History
from onbelay_server.app.engine.turn import Outcome
from onbelay_server.domain.change import EncodedEvents
from onbelay_server.domain.error import Lost
from onbelay_server.domain.event import ApprovalDecided, StateChanged
from onbelay_server.domain.state import RunState
from onbelay_server.ports.event_codec import EventCodec, RecordedEvent
from onbelay_server.ports.failpoints import pass_by
from onbelay_server.ports.store import Appended, Store

_PAGE_EVENTS = 500
_PAGE_BYTES = 2**20


class Follower:
    """Reads every event of the run once, in order, whoever wrote it."""

    def __init__(
        self,
        case: CaseFile,
        store: Store,
        codec: EventCodec,
        *,
        tell: Callable[[FromHost], None],
        on_stop: Callable[[str], None],
        on_retry: Callable[[], None],
    ) -> None:
        """`on_stop`: a stop was committed, for this reason. `on_retry`: a person said that a call
        of unknown outcome may be tried again, which takes a new copy."""
        self._case = case
        self._store = store
        self._codec = codec
        self._tell = tell
        self._on_stop = on_stop
        self._on_retry = on_retry
        self.position = case.position
        self.history = History(case.revision.limits, case.position, case.log_bytes)

    async def catch_up(self, through: int | None = None) -> None:
        """Read what others appended: decisions, timers, a stop. Raises Lost when another owner
        has written."""
        run_id = self._case.run.id
        while events := await self._store.events(
            run_id, after=self.position, limit=_PAGE_EVENTS, max_bytes=_PAGE_BYTES, through=through
        ):
            self.history.add(len(events), sum(len(event.body) for event in events))
            for event in events:
                await self._observe(self._codec.decode(event.body))

    async def committed(self, appended: Appended | None, outcome: Outcome) -> None:
        """Take what our own unit appended, after what others did before it. A batch that only asks
        again for what is awaited anyway appends nothing, and has begun all the same."""
        events = appended.events if appended is not None else ()
        if events and events[0].sequence > self.position + 1:
            await self.catch_up(through=events[0].sequence - 1)
        for stage, held in outcome.begun:
            self._tell(Begun(stage=stage, held=held))
        if appended is None or not events:
            return
        self.history.add(len(events), sum(len(event.body) for event in events))
        sequence = events[0].sequence
        for new in outcome.events:
            if isinstance(new, EncodedEvents):
                sequence += len(new.kinds)  # emits, which end no call
                continue
            await self._observe(
                RecordedEvent(
                    run_id=new.run_id,
                    sequence=sequence,
                    time_us=appended.run.update_us,
                    epoch=appended.run.epoch,
                    step_id=new.step_id,
                    payload=new.payload,
                )
            )
            sequence += 1
        self.position = events[-1].sequence

    async def _observe(self, event: RecordedEvent) -> None:
        self.position = event.sequence
        if event.epoch > self._case.run.epoch:
            raise Lost("another owner has written")
        await self._case.learn(event.payload)
        record = self._case.journal.read(event)
        if record is not None and record.type == "finished":
            self._tell(Recorded(record=record))
        match event.payload:
            case StateChanged(to_state=RunState.STOPPING):
                await pass_by("after_stop_before_told")
                self._on_stop(event.payload.reason)
            case ApprovalDecided() if self._case.journal.may_retry(event.step_id):
                self._on_retry()
