"""What the only writer of a database keeps of what it committed, so that nobody has to read it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from onbelay_server.adapters.sql.ready_queue import ReadyQueue
from onbelay_server.adapters.sql.run_cache import RunCache
from onbelay_server.adapters.working_set import WorkingSet
from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.run import Run, Wait

MOST_AGENTS = 2_000
MOST_OPEN_RUNS = 2_000
MOST_OPEN_ROWS = 32
MOST_CHARACTERS = 65_536

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values used last, up to a number of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        self._values.pop(key, None)

    def clear(self) -> None:
        self._values.clear()


@dataclass(frozen=True, slots=True)
class Open:
    """All that is open of one run, in the order the database gives it."""

    waits: tuple[Wait, ...] = ()
    approvals: tuple[Approval, ...] = ()
    operations: tuple[Operation, ...] = ()
    messages: tuple[Message, ...] = ()

    @property
    def rows(self) -> list[Wait | Approval | Operation | Message]:
        return [*self.waits, *self.approvals, *self.operations, *self.messages]

    @property
    def is_small(self) -> bool:
        """Whether it may be kept in memory."""
        rows = len(self.waits) + len(self.approvals) + len(self.operations) + len(self.messages)
        texts = sum(len(one.body) + len(one.evidence_json) for one in self.approvals)
        return rows <= MOST_OPEN_ROWS and texts <= MOST_CHARACTERS


class Kept:
    """Rows as they were last committed. Changed between transactions only, so a thread inside one
    may read it. Where other processes write too, only what never changes of a run is kept."""

    def __init__(self, *, is_exclusive: bool) -> None:
        self.runs = RunCache(keeps_runs=is_exclusive)
        self.queue = ReadyQueue()
        self.agents_version = 0
        """Grows whenever what was read of agents before may be wrong."""
        self._is_exclusive = is_exclusive
        self._open: Recent[str, Open] = Recent(MOST_OPEN_RUNS)
        self._agents: Recent[str, Agent] = Recent(MOST_AGENTS)
        self._names: Recent[tuple[str, str], str] = Recent(MOST_AGENTS)
        self._revisions: Recent[tuple[str, int], AgentRevision] = Recent(MOST_AGENTS)

    def open_of(self, run_id: str) -> Open | None:
        """All that is open of the run; None when it has to be read."""
        return self._open.get(run_id)

    def agent(self, agent_id: str) -> Agent | None:
        return self._agents.get(agent_id)

    def agent_named(self, tenant: str, name: str) -> Agent | None:
        """The agent of that name that is not deleted, when it is known."""
        agent_id = self._names.get((tenant, name))
        found = self._agents.get(agent_id) if agent_id is not None else None
        if found is None or found.delete_us is not None:
            return None
        return found if (found.tenant, found.name) == (tenant, name) else None

    def revision(self, agent_id: str, revision: int) -> AgentRevision | None:
        return self._revisions.get((agent_id, revision))

    def learn_agent(self, row: Agent, version: int) -> None:
        """An agent that was read, begun when `agents_version` was `version`."""
        if self._is_exclusive and version == self.agents_version:
            self._agents.put(row.id, row)
            if row.delete_us is None:
                self._names.put((row.tenant, row.name), row.id)

    def learn_revision(self, row: AgentRevision, version: int) -> None:
        """As `learn_agent`."""
        size = len(row.instructions) + len(row.input_schema_json) + len(row.output_schema_json)
        if self._is_exclusive and version == self.agents_version and size <= MOST_CHARACTERS:
            self._revisions.put((row.agent_id, row.revision), row)

    def commit(self, rows: WorkingSet, read: Sequence[Run]) -> None:
        """Take up a transaction that is durable; `read` are runs that it fetched."""
        changes = rows.changes
        for run in read:
            self.runs.put(run)
        for runs in (changes.runs.new, changes.runs.changed, changes.advanced):
            for run in runs.values():
                self.runs.put(run)
        if not self._is_exclusive:
            for run_id in changes.runs.gone:
                self.runs.drop(run_id)
            return
        for runs in (changes.runs.new, changes.runs.changed):
            for run in runs.values():
                self.queue.put(run)
        self._commit_open(rows)
        for run_id in changes.runs.gone:
            self.runs.drop(run_id)
            self.queue.drop(run_id)
            self._open.drop(run_id)
        self._commit_agents(rows)

    def _commit_open(self, rows: WorkingSet) -> None:
        changes = rows.changes
        whole = {*rows.whole, *changes.runs.new}
        for run_id in changes.touched - whole:
            self._open.drop(run_id)
        for run_id in whole:
            if run_id not in changes.touched and self._open.get(run_id) is not None:
                continue
            found = Open(
                waits=tuple(rows.waits.get(run_id, {}).values()),
                approvals=_present(rows.approvals, rows.pending.get(run_id, {})),
                operations=_present(rows.operations, rows.opened.get(run_id, {})),
                messages=tuple(rows.messages.get(run_id, {}).values()),
            )
            if found.is_small:
                self._open.put(run_id, found)
            else:
                self._open.drop(run_id)

    def _commit_agents(self, rows: WorkingSet) -> None:
        changes = rows.changes
        agents, revisions = changes.agents, changes.revisions
        if not (agents.new or agents.changed or agents.gone or revisions.new):
            return
        self.agents_version += 1
        if agents.gone:
            # Its revisions went with it: rare enough to begin anew.
            self._agents.clear()
            self._revisions.clear()
            return
        for changed in (agents.new, agents.changed):
            for agent in changed.values():
                self.learn_agent(agent, self.agents_version)
        for revision in revisions.new.values():
            self.learn_revision(revision, self.agents_version)

    def clear(self) -> None:
        """Forget everything: what the database holds is not certain."""
        self.agents_version += 1
        self.runs.clear()
        self.queue.clear()
        self._open.clear()
        self._agents.clear()
        self._names.clear()
        self._revisions.clear()


def _present(rows: Mapping[str, V | None], names: Iterable[str]) -> tuple[V, ...]:
    return tuple(row for name in sorted(names) if (row := rows[name]) is not None)
