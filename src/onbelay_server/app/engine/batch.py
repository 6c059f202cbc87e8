"""The part of a unit that one turn adds, call by call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from onbelay_server.app.governance.broker import Permit
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.change import EncodedEvents, Entity, NewEvent
from onbelay_server.domain.event import (
    ArtifactSaved,
    ChildRunStarted,
    EventPayload,
    MessageRead,
    OperationStarted,
    StepCancelled,
    StepFinished,
    StepStarted,
    ToolCallFinished,
)
from onbelay_server.domain.message import Message
from onbelay_server.domain.run import Wait
from onbelay_server.domain.state import ApprovalState, StepKind

_ENDS = (
    StepFinished,
    StepCancelled,
    ToolCallFinished,
    ArtifactSaved,
    MessageRead,
    ChildRunStarted,
    OperationStarted,
)
"""What ends a call in the unit that records it."""


@dataclass(slots=True)
class Batch:
    """Rows and events of one run that are being put together."""

    run_id: str
    put: list[Entity] = field(default_factory=list)
    delete: list[Wait | Message] = field(default_factory=list)
    events: list[NewEvent | EncodedEvents] = field(default_factory=list)
    permits: dict[str, Permit] = field(default_factory=dict)
    """Tool calls that may be sent once it is committed, by step."""
    children: int = 0
    """How many child runs it starts."""
    begun: dict[str, StepKind] = field(default_factory=dict)
    """Calls it begins."""
    ended: set[str] = field(default_factory=set)
    """Calls it ends."""

    def add(self, payload: EventPayload, step_id: str) -> None:
        """Append an event of the run."""
        self.events.append(NewEvent(self.run_id, payload, step_id))
        if isinstance(payload, StepStarted):
            self.begun[step_id] = payload.kind
        elif isinstance(payload, _ENDS):
            self.ended.add(step_id)

    def open_waits(self, stored: Sequence[Wait]) -> list[Wait]:
        """What the run waits for, with what this unit adds and ends."""
        gone = {wait.step_id for wait in self.delete if isinstance(wait, Wait)}
        waits = [*stored, *(one for one in self.put if isinstance(one, Wait))]
        return [wait for wait in waits if wait.step_id not in gone]

    def pending(self, stored: Sequence[Approval]) -> list[Approval]:
        """The run's pending approvals, with what this unit asks and voids."""
        approvals = {one.id: one for one in stored}
        approvals |= {one.id: one for one in self.put if isinstance(one, Approval)}
        return [one for one in approvals.values() if one.state is ApprovalState.PENDING]
