"""The database: one way to write, and the reads the application needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Decide, Reads
from onbelay_server.domain.operation import Operation, OperationState
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import ApprovalKind, ApprovalState, RunState

T = TypeVar("T")


class StoredEvent(NamedTuple):
    """One event of a run's log: the bytes are what watchers are sent."""

    sequence: int
    kind: int
    body: bytes


MAX_FRAME_EVENTS = 128
MAX_FRAME_BYTES = 256 * 1024
LONG_LOG_EVENTS = 1_000
"""From so many unsealed events on a log is worth sealing while its run is live."""


class Frame(NamedTuple):
    """Events of a log in a row, ready to be sent: `EventCodec.frame` of their bodies. At most
    MAX_FRAME_EVENTS, and MAX_FRAME_BYTES of bodies unless one alone is larger."""

    first: int
    last: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """What a commit added to one run's log, and the run's row after it."""

    run: Run
    events: tuple[StoredEvent, ...]
    """In order, dense; empty when only the row changed."""


@dataclass(frozen=True, slots=True)
class Committed(Generic[T]):
    """A unit that is durable."""

    result: T
    now_us: int
    """The time its events carry."""
    runs: Mapping[str, Appended]
    """By run id: every run this unit wrote to, with this unit's own events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs a list or a stop is about. Empty fields match everything."""

    agent_ids: Sequence[str] = ()
    """Agent ids or names."""
    states: Sequence[RunState] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """All of these pairs."""
    session_id: str = ""
    starter: str = ""
    parent_id: str = ""
    root_id: str = ""
    roots_only: bool = False
    created_from_us: int | None = None
    created_before_us: int | None = None

    def matches(self, run: Run) -> bool:
        """What the store's query answers, for one run at hand."""
        from_us, before_us = self.created_from_us, self.created_before_us
        return (
            (not self.agent_ids or bool({run.agent_id, run.agent_name} & set(self.agent_ids)))
            and (not self.states or run.state in self.states)
            and all(run.labels.get(key) == value for key, value in self.labels.items())
            and (not self.session_id or run.session_id == self.session_id)
            and (not self.starter or run.starter == self.starter)
            and (not self.parent_id or run.parent_id == self.parent_id)
            and (not self.root_id or run.root_id == self.root_id)
            and (not self.roots_only or run.parent_id is None)
            and (from_us is None or run.create_us >= from_us)
            and (before_us is None or run.create_us < before_us)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFilter:
    """Which approvals a list is about. Empty fields match everything."""

    run_id: str = ""
    states: Sequence[ApprovalState] = ()
    kinds: Sequence[ApprovalKind] = ()
    agent_id: str = ""
    """Agent id or name."""
    decidable_by: str = ""
    """A principal: only what it may decide."""
    evidence_artifact_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFilter:
    """Which operations a list is about. Empty fields match everything."""

    run_id: str = ""
    states: Sequence[OperationState] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a newest-first page ended: the last row's creation time and id."""

    create_us: int
    id: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A run this process owns, as the renewal found it."""

    run_id: str
    epoch: int
    state: RunState
    pause_requested: bool


class Store(Protocol):
    """Where runs live. Every method may raise Unavailable when the database is away.

    Writes are serialised by one writer per process that commits what is queued in one transaction
    and never waits for more. A caller that is cancelled while it waits does not cancel its unit:
    whether it was written is then unknown and settled by reading, or by its request_id.
    """

    async def write(self, reads: Reads, decide: Decide[T]) -> Committed[T]:
        """Read, decide and commit, atomically: rows and events together or nothing.

        Events get the next sequences of their run and the epoch its row has after the change; their
        time is the commit's, never earlier than the run's previous event. Raises what `decide`
        raises. When it returns, the change survives a crash (and power loss, unless the operator
        chose otherwise).
        """
        ...

    def on_commit(self, hear: Callable[[Sequence[Appended]], None]) -> None:
        """Call `hear` on the caller's loop after each transaction with what was appended, before
        the units' futures resolve. It must not block or raise."""
        ...

    async def run(self, run_id: str) -> Run | None:
        """The run, for the engine and for checks of ownership."""
        ...

    async def waits(self, run_ids: Sequence[str]) -> Mapping[str, list[Wait]]:
        """What these runs wait for, in the order it was asked."""
        ...

    async def list_runs(
        self, viewer: Viewer, which: RunFilter, *, after: Place | None, limit: int
    ) -> list[Run]:
        """What the viewer sees of the filter, newest first, from behind `after` on."""
        ...

    async def events(
        self,
        run_id: str,
        *,
        after: int,
        limit: int,
        max_bytes: int,
        kinds: Sequence[int] = (),
        except_kinds: Sequence[int] = (),
        through: int | None = None,
    ) -> list[StoredEvent]:
        """The log behind sequence `after`, in order: at most `limit` events, at least one if there
        is one, and no more once `max_bytes` is passed."""
        ...

    async def seal(self, run_id: str, *, through: int | None) -> int:
        """Pack the log into frames, from where its frames end up to `through`, or its end; how
        many were made. Only whole frames while the run is live; once it is final also the rest.

        Goes in short steps, and may be called by several processes at once: what it made stays
        when it is cancelled, and frames never change. Does nothing for a run that is not there.
        """
        ...

    async def frames(self, run_id: str, *, after: int, limit_bytes: int) -> list[Frame]:
        """Frames in a row of which the first begins with event `after` + 1: the frame that holds
        it is cut to begin there. At least one if that event is sealed, and no more once
        `limit_bytes` is passed."""
        ...

    async def unsealed(self, limit: int) -> list[str]:
        """Runs whose log wants sealing: final ones whose log is longer than one frame, live ones
        with more than LONG_LOG_EVENTS events that are in no frame."""
        ...

    async def approval(self, approval_id: str) -> Approval | None: ...

    async def list_approvals(
        self, viewer: Viewer, which: ApprovalFilter, *, after: Place | None, limit: int
    ) -> list[Approval]:
        """Newest first. A viewer sees the approvals of runs it sees and those it may decide."""
        ...

    async def operation(self, operation_id: str) -> Operation | None: ...

    async def list_operations(
        self, viewer: Viewer, which: OperationFilter, *, after: Place | None, limit: int
    ) -> list[Operation]:
        """Newest first, of runs the viewer sees."""
        ...

    async def artifact(self, artifact_id: str) -> Artifact | None: ...

    async def list_artifacts(
        self, run_id: str, *, after: Place | None, limit: int
    ) -> list[Artifact]:
        """A run's saved artifacts, oldest first."""
        ...

    async def agent(self, agent_id: str) -> Agent | None: ...

    async def agent_named(self, tenant: str, name: str) -> Agent | None:
        """The agent of that name that is not deleted."""
        ...

    async def list_agents(self, tenant: str, *, after: Place | None, limit: int) -> list[Agent]:
        """The tenant's agents that are not deleted, newest first."""
        ...

    async def revision(self, agent_id: str, revision: int) -> AgentRevision | None: ...

    async def list_revisions(
        self, agent_id: str, *, before: int | None, limit: int
    ) -> list[AgentRevision]:
        """Newest first."""
        ...

    async def claimable(self, now_us: int, *, limit: int) -> list[Run]:
        """QUEUED runs whose ready time has come, the oldest of each tenant in turn, so that no
        tenant's flood is in front of another's first run."""
        ...

    async def next_ready_us(self) -> int | None:
        """The earliest ready time of any QUEUED run."""
        ...

    async def due_waits(self, now_us: int, *, limit: int) -> list[Wait]:
        """Waits whose end has come, earliest first; those of final runs are not there."""
        ...

    async def next_due_us(self) -> int | None:
        """The earliest end of any wait."""
        ...

    async def renew(self, owner: str, *, until_us: int) -> list[Lease]:
        """Extend every lease of the owner, in one statement, and say what each run now asks for."""
        ...

    async def orphans(self, now_us: int, *, alive: Sequence[str], limit: int) -> list[Run]:
        """RUNNING or STOPPING runs that nobody drives: no owner, or an owner not in `alive` whose
        lease has ended. Where one process owns the database, every owner not in `alive` is dead."""
        ...

    async def expired_roots(self, finished_before_us: int, *, limit: int) -> list[Run]:
        """Roots of trees that are all final and finished before then: what retention removes."""
        ...

    async def expired_uploads(self, now_us: int, *, limit: int) -> list[Artifact]:
        """Uploads that no run took in time."""
        ...

    async def blobs_in_use(self, sha256s: Sequence[str]) -> set[str]:
        """Which of these contents some artifact row still names."""
        ...

    async def prune_requests(self, before_us: int, *, limit: int) -> int:
        """Forget remembered requests that are older and whose run, if any, is gone; how many."""
        ...

    async def check(self) -> None:
        """Answer when the database does. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Finish what is queued and let go of the database."""
        ...
