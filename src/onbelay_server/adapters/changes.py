"""What a transaction has to write, table by table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.domain.run import Run, Wait
from onbelay_server.ports.store import StoredEvent

K = TypeVar("K")
E = TypeVar("E")


class EventRows(NamedTuple):
    """Events of one run and commit to insert."""

    run_id: str
    epoch: int
    time_us: int
    events: tuple[StoredEvent, ...]

    def values(self) -> Iterable[tuple[str, int, int, int, bytes, int]]:
        """Run, sequence, epoch, kind, body and time of each."""
        run_id, epoch, time_us, events = self
        return [(run_id, sequence, epoch, kind, body, time_us) for sequence, kind, body in events]


class Delta(Generic[K, E]):
    """What a transaction does to one table. Deletions come before everything else."""

    __slots__ = ("changed", "gone", "new")

    def __init__(self) -> None:
        self.new: dict[K, E] = {}
        self.changed: dict[K, E] = {}
        self.gone: dict[K, None] = {}

    def put(self, key: K, row: E, *, exists: bool) -> None:
        if exists and key not in self.new:
            self.changed[key] = row
        else:
            self.new[key] = row

    def drop(self, key: K) -> None:
        self.new.pop(key, None)
        self.changed.pop(key, None)
        self.gone[key] = None


@dataclass(slots=True)
class Changes:
    """Everything a transaction has to write."""

    runs: Delta[str, Run] = field(default_factory=Delta)
    advanced: dict[str, Run] = field(default_factory=dict)
    """Runs of which only the last sequence and the update time moved."""
    moved: set[str] = field(default_factory=set)
    """Of the changed runs those that other queries find now: by state, owner or a time."""
    touched: set[str] = field(default_factory=set)
    """Runs whose waits, approvals, operations or messages it changes."""
    long: set[str] = field(default_factory=set)
    """Runs whose log became one to seal."""
    removed: set[str] = field(default_factory=set)
    """Of the runs that are gone those whose log goes later, step by step."""
    gone_events: int = 0
    """Events of runs that go in this transaction itself."""
    events: list[EventRows] = field(default_factory=list)
    waits: Delta[tuple[str, str], Wait] = field(default_factory=Delta)
    approvals: Delta[str, Approval] = field(default_factory=Delta)
    operations: Delta[str, Operation] = field(default_factory=Delta)
    messages: Delta[str, Message] = field(default_factory=Delta)
    artifacts: Delta[str, Artifact] = field(default_factory=Delta)
    agents: Delta[str, Agent] = field(default_factory=Delta)
    revisions: Delta[tuple[str, int], AgentRevision] = field(default_factory=Delta)
    requests: Delta[RequestKey, Request] = field(default_factory=Delta)
