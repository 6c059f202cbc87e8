"""A write on its way: the rows its decision may see, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from onbelay_server.adapters.working_set import NotNamed, WorkingSet
from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Decide, Reads
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.domain.run import Run, Wait
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import Committed

T = TypeVar("T")


class NamedRows:
    """The rows of one decision. Asking for one that its Reads do not name raises NotNamed, whatever
    the units beside it have read: a forgotten name must not work by luck."""

    __slots__ = ("_reads", "_set")

    def __init__(self, rows: WorkingSet, reads: Reads) -> None:
        self._set = rows
        self._reads = reads

    def run(self, run_id: str) -> Run | None:
        found = self._set.runs.get(run_id)
        if run_id not in self._reads.runs and (
            found is None or found.root_id not in self._reads.trees
        ):
            raise NotNamed(f"run {run_id}")
        return found

    def tree(self, root_id: str) -> list[Run]:
        """Parents before their children."""
        _named(root_id, self._reads.trees, "tree")
        runs = [self._set.runs[run_id] for run_id in self._set.trees.get(root_id, {})]
        present = [run for run in runs if run is not None]
        return sorted(present, key=lambda run: (run.depth, run.create_us, run.id))

    def waits(self, run_id: str) -> list[Wait]:
        """In the order they were asked."""
        self._open(run_id)
        return list(self._set.waits.get(run_id, {}).values())

    def pending_approvals(self, run_id: str) -> list[Approval]:
        """Oldest first."""
        self._open(run_id)
        found = [self._set.approvals[name] for name in self._set.pending.get(run_id, {})]
        present = [approval for approval in found if approval is not None]
        return sorted(present, key=lambda approval: (approval.create_us, approval.id))

    def open_operations(self, run_id: str) -> list[Operation]:
        """Oldest first."""
        self._open(run_id)
        found = [self._set.operations[name] for name in self._set.opened.get(run_id, {})]
        present = [operation for operation in found if operation is not None]
        return sorted(present, key=lambda operation: (operation.create_us, operation.id))

    def unread(self, run_id: str) -> list[Message]:
        """In the order they were sent."""
        self._open(run_id)
        found = self._set.messages.get(run_id, {}).values()
        return sorted(found, key=lambda message: message.number)

    def operation(self, operation_id: str) -> Operation | None:
        _named(operation_id, self._reads.operations, "operation")
        return self._set.operations.get(operation_id)

    def approval(self, approval_id: str) -> Approval | None:
        _named(approval_id, self._reads.approvals, "approval")
        return self._set.approvals.get(approval_id)

    def artifact(self, artifact_id: str) -> Artifact | None:
        _named(artifact_id, self._reads.artifacts, "artifact")
        return self._set.artifacts.get(artifact_id)

    def artifacts_of(self, run_id: str) -> list[Artifact]:
        """Oldest first."""
        _named(run_id, self._reads.artifacts_of, "artifacts of")
        found = [self._set.artifacts[name] for name in self._set.saved.get(run_id, {})]
        present = [artifact for artifact in found if artifact is not None]
        return sorted(present, key=lambda artifact: (artifact.create_us, artifact.id))

    def agent(self, agent_id: str) -> Agent | None:
        found = self._set.agents.get(agent_id)
        if found is None or (found.tenant, found.name) not in self._reads.agent_names:
            _named(agent_id, self._reads.agents, "agent")
        return found

    def agent_named(self, tenant: str, name: str) -> Agent | None:
        _named((tenant, name), self._reads.agent_names, "agent named")
        agent_id = self._set.names.get((tenant, name))
        return self._set.agents.get(agent_id) if agent_id is not None else None

    def revision(self, agent_id: str, revision: int) -> AgentRevision | None:
        _named((agent_id, revision), self._reads.revisions, "revision")
        return self._set.revisions.get((agent_id, revision))

    def request(self, key: RequestKey) -> Request | None:
        _named(key, self._reads.requests, "request")
        return self._set.requests.get(key)

    def _open(self, run_id: str) -> None:
        if run_id in self._reads.open_of:
            return
        run = self._set.runs.get(run_id)
        if run is None or run.root_id not in self._reads.trees:
            raise NotNamed(f"what is open of run {run_id}")


def _named(key: object, names: Sequence[object], what: str) -> None:
    if key not in names:
        raise NotNamed(f"{what} {key}")


@dataclass(frozen=True, slots=True)
class Unit(Generic[T]):
    """One write as its caller asked for it."""

    reads: Reads
    decide: Decide[T]

    def run(self, rows: WorkingSet, now_us: int, codec: EventCodec) -> Committed[T]:
        """Decide on `rows` and carry it out there. Whatever it raises, `rows` is as before."""
        change = self.decide(NamedRows(rows, self.reads), now_us)
        appended = rows.apply(change, now_us, codec)
        time_us = max((after.run.update_us for after in appended.values()), default=now_us)
        return Committed(change.result, time_us, appended)


Outcome = Committed[Any] | Exception
"""What became of a unit."""
