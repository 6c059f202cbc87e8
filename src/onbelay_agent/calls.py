"""The calls that are open, and the batches in which they are recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from onbelay_agent.call import Call
from onbelay_agent.emits import Emits
from onbelay_agent.journal import Diverged, Journal
from onbelay_agent.outbox import Outbox
from onbelay_agent.protocol import Begin, Cancel, Intent, Reopened

MAX_BATCH_BYTES = 200 * 1024
"""A larger batch travels in several Begin frames of the same stage."""


class Calls:
    """What the agent has asked for and has not been given. One stage, one batch."""

    def __init__(self, outbox: Outbox, emits: Emits, cancel_work: Callable[[str], None]) -> None:
        self.journal = Journal()
        self.stage = 0
        """How many results have been released."""
        self.submitted_stage = -1
        """The last stage whose batch was submitted, empty ones included."""
        self.by_id: dict[str, Call] = {}
        self.problem: Diverged | None = None
        """The first way in which a call differed from its record."""
        self._outbox = outbox
        self._emits = emits
        self._cancel_work = cancel_work
        self._asked: list[Call] = []
        self._reopenable: list[Call] = []
        self._cancelled: list[str] = []
        self._begins: deque[tuple[int, tuple[Call, ...]]] = deque()

    # ---- from the agent --------------------------------------------------------------------------

    def ask(self, call: Call) -> None:
        """Note a call at this stage."""
        call.stage = self.stage
        call.state = "asked"
        self.by_id[call.id] = call
        try:
            started = self.journal.ask(call.id, call.kind, call.digest, call.stage)
        except Diverged as problem:
            self.problem = self.problem or problem
            return
        if started is None:
            self._asked.append(call)
            return
        call.recorded = True
        call.attempt = started.attempt + 1
        if call.id not in self.journal.finished:
            self._reopenable.append(call)

    def cancel(self, call: Call) -> None:
        """The agent no longer wants it."""
        if call.state == "begun":
            call.state = "cancelled"
            self._cancel_work(call.id)
            # A host may hold a batch back: what it has not recorded it cannot cancel either.
            if call.committed:
                self._cancelled.append(call.id)
        elif call.state == "asked" and (call.recorded or call.stage < self.stage):
            # Asked before an idle of the replay: a later copy will find it asked there too.
            call.state = "cancelled"
            if call.recorded and not self.journal.settled(call.id):
                self._cancelled.append(call.id)
        elif call.state == "asked":
            call.state = "over"
            self._asked.remove(call)
            del self.by_id[call.id]

    def forget(self, step_id: str) -> None:
        """Its cancellation is recorded: no result will come that would have to be skipped."""
        call = self.by_id.get(step_id)
        if call is not None and call.state == "cancelled":
            del self.by_id[step_id]

    # ---- from the driver, at idle ----------------------------------------------------------------

    def check_asked(self) -> None:
        """Raises Diverged when a call was asked that differs from its record."""
        if self.problem is not None:
            raise self.problem

    def check_replay(self) -> None:
        """At an idle of a replay. Raises Diverged."""
        stage = self.stage
        self.journal.check_idle(
            stage, [call.asked() for call in self._asked if call.stage == stage]
        )

    def check_replayed(self) -> None:
        """Once all recorded results are released. Raises Diverged."""
        self.journal.check_replayed()
        for call in self._reopenable:
            if call.state != "cancelled" and call.id in self.journal.cancelled:
                raise Diverged(call.id, "as cancelled", "that the agent waits for it")

    def submit(self) -> None:
        """Record all that was asked in this stage and is still wanted, as one batch."""
        self.submitted_stage = self.stage
        if self._asked or self._reopenable:
            asked, self._asked = self._asked, []
            # First, so that a batch recorded in part shows whether the code knew of versions.
            if len(asked) > 1:
                asked.sort(key=_is_no_version)
            reopened = [call for call in self._reopenable if call.state == "asked"]
            self._reopenable = []
            self._submit_batch(asked, reopened)
        if self._cancelled:
            self._outbox.send(Cancel(step_ids=tuple(self._cancelled)))
            self._cancelled = []

    def begun(self) -> tuple[Call, ...]:
        """The calls of the oldest batch, which the host has now recorded."""
        _, batch = self._begins.popleft()
        for call in batch:
            call.committed = True
            if call.state == "cancelled":
                self._cancelled.append(call.id)
        return batch

    @property
    def submitting(self) -> bool:
        """A batch is submitted and not recorded yet."""
        return bool(self._begins)

    @property
    def cancelling(self) -> bool:
        """Calls are cancelled and the host does not know it yet."""
        return bool(self._cancelled)

    @property
    def confirmed_stage(self) -> int:
        """The last stage all of whose calls are known to be recorded."""
        return self._begins[0][0] - 1 if self._begins else self.submitted_stage

    @property
    def working(self) -> bool:
        """Something that was begun is in flight here or in the host."""
        return any(
            call.state == "begun" and not call.waits_on_others for call in self.by_id.values()
        )

    def waiting(self) -> list[Call]:
        """The begun calls, in the order they were asked."""
        return [call for call in self.by_id.values() if call.state == "begun"]

    def recorded_open(self) -> tuple[str, ...]:
        """Ids of calls whose start is recorded and whose end is not, at the end of the run."""
        left = [
            call.id
            for call in self.by_id.values()
            if call.state == "begun"
            or (call.state == "asked" and call.recorded and not self.journal.settled(call.id))
        ]
        begins = (call for _, batch in self._begins for call in batch)
        unsaid = (call.id for call in begins if call.state == "cancelled")
        return (*self._cancelled, *unsaid, *left)

    def _submit_batch(self, asked: Sequence[Call], reopened: Sequence[Call]) -> None:
        intents: list[Intent] = []
        again: list[Reopened] = []
        batch: list[Call] = []
        uploads: list[bytes] = []
        size_bytes = 0
        for call in (*reopened, *asked):
            if size_bytes > MAX_BATCH_BYTES:
                self._send_batch(batch, intents, again, uploads)
                intents, again, batch, uploads, size_bytes = [], [], [], [], 0
            if call.state != "cancelled":
                batch.append(call)
            if call.recorded:
                again.append(call.reopened())
            else:
                intents.append(call.intent())
                size_bytes += len(call.request_json)
                if call.upload is not None and call.state != "cancelled":
                    uploads.append(call.upload)
            if call.state == "asked":
                call.state = "begun"
            call.upload = None
        if intents or again:
            self._send_batch(batch, intents, again, uploads)

    def _send_batch(
        self,
        batch: Sequence[Call],
        intents: Sequence[Intent],
        again: Sequence[Reopened],
        uploads: Sequence[bytes],
    ) -> None:
        self._begins.append((self.stage, tuple(batch)))
        frame = Begin(
            stage=self.stage,
            emits=self._emits.take(),
            intents=tuple(intents),
            reopened=tuple(again),
        )
        self._outbox.send(frame, uploads)


def _is_no_version(call: Call) -> bool:
    return call.kind != "VERSION"
