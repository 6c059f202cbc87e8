"""The part of a unit that one turn adds, call by call."""

from __future__ import annotations

from dataclasses import dataclass, field

from onbelay_server.app.governance.broker import Permit
from onbelay_server.domain.change import EncodedEvent, Entity, NewEvent
from onbelay_server.domain.event import EventPayload
from onbelay_server.domain.message import Message
from onbelay_server.domain.run import Wait


@dataclass(slots=True)
class Batch:
    """Rows and events of one run that are being put together."""

    run_id: str
    put: list[Entity] = field(default_factory=list)
    delete: list[Wait | Message] = field(default_factory=list)
    events: list[NewEvent | EncodedEvent] = field(default_factory=list)
    permits: dict[str, Permit] = field(default_factory=dict)
    """Tool calls that may be sent once it is committed, by step."""
    children: int = 0
    """How many child runs it starts."""

    def add(self, payload: EventPayload, step_id: str) -> None:
        """Append an event of the run."""
        self.events.append(NewEvent(self.run_id, payload, step_id))

    def waits(self) -> list[Wait]:
        """The waits it makes."""
        return [one for one in self.put if isinstance(one, Wait)]
