"""What has been recorded of a run, and whether the agent's code still fits it. Pure.

*Stage* counts the results released so far. Every call notes the stage it was asked at, every
start the stage its batch was submitted at, every step's end the last stage whose batch had been
submitted. That is enough to tell, at each idle of a replay, a call that has gone missing from one
that had not been recorded yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from onbelay_agent.errors import RunEnding
from onbelay_agent.protocol import CallKind, Record


class Diverged(RunEnding):
    """The agent's code does not fit its log. Raised to the driver only, never to the agent."""


@dataclass(slots=True)
class Started:
    """A recorded start that the agent's code has not asked for yet."""

    kind: CallKind
    digest: str
    stage: int
    attempt: int


class Journal:
    """The records of earlier copies, then those of this one, in log order."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.unasked: dict[str, Started] = {}
        self.finished: set[str] = set()
        """Ids whose result stood in the log when this copy began."""
        self.cancelled: set[str] = set()
        """Ids recorded as cancelled when this copy began."""
        self.results: deque[Record] = deque()
        """Results not yet released."""
        self.complete_through = -1
        """The last stage all of whose calls are known to be recorded."""
        self._ids_by_stage: dict[int, list[str]] = {}
        for record in records:
            if record.type == "started":
                self._add_start(record)
            elif record.type == "finished":
                self.results.append(record)
                self.finished.add(record.step_id)
                if record.stage is not None and record.stage > self.complete_through:
                    self.complete_through = record.stage
            else:
                self.cancelled.add(record.step_id)
        self.replay_left = len(self.results)
        """Recorded results of earlier copies that are still to be released."""

    def _add_start(self, record: Record) -> None:
        stage = record.stage if record.stage is not None else 0
        # A batch may travel in pieces, so a start says only that the stages before it are whole.
        if stage - 1 > self.complete_through:
            self.complete_through = stage - 1
        if record.cancelled:
            self.cancelled.add(record.step_id)
        known = self.unasked.get(record.step_id)
        if known is not None:
            known.attempt = max(known.attempt, record.attempt)
            return
        assert record.kind is not None, f"the start of {record.step_id} has no kind"
        self.unasked[record.step_id] = Started(record.kind, record.digest, stage, record.attempt)
        self._ids_by_stage.setdefault(stage, []).append(record.step_id)

    def ask(self, step_id: str, kind: CallKind, digest: str) -> Started | None:
        """The recorded start of a call now asked, or None. Raises Diverged when it differs."""
        started = self.unasked.pop(step_id, None) if self.unasked else None
        if started is None:
            return None
        if started.kind != kind:
            raise Diverged(f"{step_id}: recorded as {started.kind}, found as {kind}")
        if started.digest != digest:
            raise Diverged(
                f"{step_id}: recorded with digest {started.digest}, found with {digest}: "
                "it is asked with other arguments"
            )
        return started

    def settled(self, step_id: str) -> bool:
        """Whether its end stood in the log when this copy began."""
        return step_id in self.finished or step_id in self.cancelled

    def check_idle(self, stage: int, unrecorded: Iterable[tuple[str, int]]) -> None:
        """At an idle of a replay. `unrecorded`: ids asked and not recorded, with their stages.

        Raises Diverged when a start of this stage was not asked, or a call was asked at a stage
        that is known to be complete."""
        for step_id in self._ids_by_stage.get(stage, ()):
            if step_id in self.unasked:
                raise Diverged(
                    f"{step_id}: recorded as started, found: the agent no longer asks for it"
                )
        for step_id, asked_stage in unrecorded:
            if asked_stage <= self.complete_through:
                raise Diverged(f"{step_id}: not recorded, found: the agent now asks for it here")

    def check_replayed(self) -> None:
        """Once every recorded result is released: every recorded start must have been asked."""
        for step_id in self.unasked:
            raise Diverged(f"{step_id}: recorded as started, found: the agent never asked for it")

    def check_returned(self, stage: int) -> None:
        """The agent's code ended at `stage` in the replay. Raises Diverged if it had not."""
        self.check_replayed()
        if self.complete_through >= stage:
            record = self.results[0].step_id if self.results else "a later call"
            raise Diverged(f"{record}: recorded after the point at which the agent now ends")
