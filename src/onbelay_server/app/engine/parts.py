"""What the engine's parts share: the ports they use and the settings they keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onbelay_server.app.engine.alarm import Alarm
from onbelay_server.app.engine.emits import EmitEncoder
from onbelay_server.app.engine.stubborn import Stubborn
from onbelay_server.app.governance.broker import Broker
from onbelay_server.app.operation_token import OperationTokens
from onbelay_server.domain.agent import AgentRevision, HarnessKind
from onbelay_server.ports.blobs import Blobs
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.harness import Harness
from onbelay_server.ports.store import Store
from onbelay_server.ports.wakeup import Wakeup


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast and how much the engine works."""

    slots: int = 64
    """Runs at once in this process."""
    lease_seconds: float = 30.0
    poll_seconds: float = 2.0
    """How long a lost hint can delay anything."""
    recovery_at_once: int = 16
    """Orphans requeued at the same time."""
    drain_seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The engine's ports."""

    owner: str
    """This process, by a name that is random at every start."""
    store: Store
    codec: EventCodec
    emits: EmitEncoder
    clock: Clock
    wakeup: Wakeup
    blobs: Blobs
    broker: Broker
    tokens: OperationTokens
    harnesses: Mapping[HarnessKind, Harness]
    pace: Pace
    alarm: Alarm
    """Rings when a wait of this process is due."""
    stubborn: Stubborn = field(default_factory=Stubborn)

    def harness_for(self, revision: AgentRevision) -> Harness | str:
        """What can run this agent here, or why nothing can."""
        harness = self.harnesses.get(revision.harness)
        if harness is None:
            return "this server runs no such agents"
        return harness.check(revision) or harness
