"""What has been recorded of a run, and whether the agent's code still fits it. Pure.

*Stage* counts the results released so far. Every call notes the stage it was asked at, every
start the stage its batch was submitted at, every step's end the last stage whose batch had been
submitted. That is enough to tell, at each idle of a replay, a call that has gone missing from one
that had not been recorded yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from onbelay_agent.errors import RunEnding
from onbelay_agent.protocol import CallKind, Record


class Diverged(RunEnding):
    """The agent's code does not fit its log. Raised to the driver only, never to the agent.

    `step_id` is the call that does not fit, `recorded` what the journal has there and `found` what
    the code asked for instead; both are for people to read."""

    def __init__(self, step_id: str, recorded: str, found: str) -> None:
        super().__init__(f"{step_id}: recorded {recorded}; found {found}")
        self.step_id = step_id
        self.recorded = recorded
        self.found = found


class Asked(NamedTuple):
    """A call the code asks for, or did when it was recorded."""

    step_id: str
    kind: CallKind
    digest: str
    stage: int

    def __str__(self) -> str:
        call = self.step_id.partition(":")[2]
        return f"{call} digest {self.digest[:8]}… asked at stage {self.stage}"


@dataclass(slots=True)
class Started:
    """A recorded start that the agent's code has not asked for yet."""

    kind: CallKind
    digest: str
    stage: int
    attempt: int

    def asked(self, step_id: str) -> Asked:
        """The call it is the start of."""
        return Asked(step_id, self.kind, self.digest, self.stage)


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

    def ask(self, step_id: str, kind: CallKind, digest: str, stage: int) -> Started | None:
        """The recorded start of a call now asked, or None. Raises Diverged when it differs."""
        started = self.unasked.pop(step_id, None) if self.unasked else None
        if started is None:
            return None
        found = Asked(step_id, kind, digest, stage)
        if started.kind != kind:
            raise Diverged(step_id, f"{started.kind} {started.asked(step_id)}", f"{kind} {found}")
        if started.digest != digest:
            raise Diverged(step_id, str(started.asked(step_id)), str(found))
        return started

    def settled(self, step_id: str) -> bool:
        """Whether its end stood in the log when this copy began."""
        return step_id in self.finished or step_id in self.cancelled

    def passed(self, stage: int) -> bool:
        """Whether an earlier copy recorded what it asked at this stage, at least in part."""
        return stage <= self.complete_through or stage in self._ids_by_stage

    def result_of(self, step_id: str) -> Record | None:
        """A recorded result that is not released yet."""
        return next((one for one in self.results if one.step_id == step_id), None)

    def check_idle(self, stage: int, unrecorded: Sequence[Asked]) -> None:
        """At an idle of a replay. `unrecorded`: what was asked at this stage and is not recorded.

        Raises Diverged when a start of this stage was not asked, or a call was asked at a stage
        that is known to be complete."""
        for step_id in self._ids_by_stage.get(stage, ()):
            started = self.unasked.get(step_id)
            if started is not None:
                found = str(unrecorded[0]) if unrecorded else "that the agent does not ask for it"
                raise Diverged(step_id, str(started.asked(step_id)), found)
        if unrecorded and stage <= self.complete_through:
            raise Diverged(unrecorded[0].step_id, "nothing there", str(unrecorded[0]))

    def check_replayed(self, found: str = "that the agent never asks for it") -> None:
        """Once every recorded result is released: every recorded start must have been asked."""
        for step_id, started in self.unasked.items():
            raise Diverged(step_id, str(started.asked(step_id)), found)

    def check_returned(self, stage: int) -> None:
        """The agent's code ended at `stage` in the replay. Raises Diverged if it had not."""
        ends_here = f"that the agent ends at stage {stage}"
        self.check_replayed(ends_here)
        if self.complete_through >= stage:
            step_id = self.results[0].step_id if self.results else "a later call"
            raise Diverged(step_id, "after that", ends_here)
