"""What a decision is made from and what it comes to: the shape of every write.

A write is a unit: the rows it reads, a pure `decide`, and what comes of it. `decide` never awaits,
never reads a clock and is called again, on fresher rows, whenever the transaction has to be tried
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.event import EventPayload
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.domain.run import Run, Wait

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """The rows a decision needs, by id. What is not named here cannot be written either."""

    runs: Sequence[str] = ()
    trees: Sequence[str] = ()
    """Root ids: every run of these trees, with what `open_of` names of each."""
    open_of: Sequence[str] = ()
    """Run ids whose waits, pending approvals, open operations and unread messages are needed."""
    operations: Sequence[str] = ()
    approvals: Sequence[str] = ()
    artifacts: Sequence[str] = ()
    artifacts_of: Sequence[str] = ()
    """Run ids whose saved artifacts are needed."""
    agents: Sequence[str] = ()
    agent_names: Sequence[tuple[str, str]] = ()
    """(tenant, name)."""
    revisions: Sequence[tuple[str, int]] = ()
    """(agent id, revision)."""
    requests: Sequence[RequestKey] = ()


class Rows(Protocol):
    """The rows of one decision, as they stand in its transaction."""

    def run(self, run_id: str) -> Run | None: ...
    def tree(self, root_id: str) -> list[Run]: ...
    def waits(self, run_id: str) -> list[Wait]: ...
    def pending_approvals(self, run_id: str) -> list[Approval]: ...
    def open_operations(self, run_id: str) -> list[Operation]: ...
    def unread(self, run_id: str) -> list[Message]: ...
    def operation(self, operation_id: str) -> Operation | None: ...
    def approval(self, approval_id: str) -> Approval | None: ...
    def artifact(self, artifact_id: str) -> Artifact | None: ...
    def artifacts_of(self, run_id: str) -> list[Artifact]: ...
    def agent(self, agent_id: str) -> Agent | None: ...
    def agent_named(self, tenant: str, name: str) -> Agent | None: ...
    def revision(self, agent_id: str, revision: int) -> AgentRevision | None: ...
    def request(self, key: RequestKey) -> Request | None: ...


Entity = Run | Wait | Approval | Operation | Message | Artifact | Agent | AgentRevision | Request


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. Sequence, time and epoch are given by the commit."""

    run_id: str
    payload: EventPayload
    step_id: str = ""


@dataclass(frozen=True, slots=True)
class EncodedEvents:
    """Events of one run, in order, that were encoded before; the commit only stamps them."""

    run_id: str
    kinds: Sequence[int]
    bodies: Sequence[bytes]
    """As many as `kinds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """What a decision came to: rows and events of one transaction, and the answer."""

    result: T
    put: Sequence[Entity] = ()
    """Rows to insert or replace. An appended run's row need not be put for its sequence's sake."""
    delete: Sequence[Wait | Message | Run | Agent | Artifact] = ()
    """Rows to remove; a run goes with its events, waits, approvals, operations, messages and
    artifacts."""
    events: Sequence[NewEvent | EncodedEvents] = ()


Decide = Callable[[Rows, int], Change[T]]
"""`decide(rows, now_us)`: a Change, or raises DomainError and leaves everything untouched."""
