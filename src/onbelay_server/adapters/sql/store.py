"""The store over a SQL database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from onbelay_server.adapters.sql.agent_rows import agent_from, revision_from
from onbelay_server.adapters.sql.batch import Batch
from onbelay_server.adapters.sql.database import Database, Statement, Steps, open_database
from onbelay_server.adapters.sql.kept import Kept
from onbelay_server.adapters.sql.logs import Logs
from onbelay_server.adapters.sql.open_rows import operation_from, wait_from
from onbelay_server.adapters.sql.queries import Queries
from onbelay_server.adapters.sql.rows import (
    Row,
    approval_from,
    artifact_from,
    inputs_from,
    run_from,
)
from onbelay_server.adapters.sql.schema import check_schema
from onbelay_server.adapters.sql.statements import Statements
from onbelay_server.adapters.sql.writer import Writer
from onbelay_server.adapters.unit import Unit
from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Decide, Reads
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import RunState
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import (
    Appended,
    ApprovalFilter,
    Committed,
    Frame,
    Lease,
    OperationFilter,
    Place,
    RunFilter,
    StoredEvent,
)

T = TypeVar("T")


class SqlStore:
    """Store over SQLite or PostgreSQL. Made by `open`; belongs to the loop that opened it."""

    def __init__(self, database: Database, *, codec: EventCodec, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._queries = Queries(database.sql)
        self._kept = Kept(is_exclusive=database.is_exclusive)
        batch = Batch(Statements(database.sql), codec, clock, self._kept)
        self._writer = Writer(database, batch)
        self._logs = Logs(database, self._writer, codec)
        self._logs.begin()
        self._is_closed = False

    @classmethod
    async def open(
        cls, url: str, *, codec: EventCodec, clock: Clock, synchronous: str = "FULL"
    ) -> SqlStore:
        """Open the database that `url` names (`sqlite:///file`, `postgresql://…`). Runs no
        migration. `synchronous` counts for SQLite: NORMAL may lose the last commits with the power.

        Raises SchemaMismatch, DatabaseInUse, or StoreError for what cannot be opened.
        """
        database = await open_database(url, synchronous=synchronous)
        try:
            await check_schema(database)
        except BaseException:
            await database.close()
            raise
        return cls(database, codec=codec, clock=clock)

    async def write(self, reads: Reads, decide: Decide[T]) -> Committed[T]:
        return await self._writer.write(Unit(reads, decide))

    def on_commit(self, hear: Callable[[Sequence[Appended]], None]) -> None:
        self._writer.on_commit(hear)

    async def run(self, run_id: str) -> Run | None:
        kept = self._kept.runs.run(run_id)
        if kept is not None:
            return kept
        found = await self._runs(self._queries.run(run_id))
        return found[0] if found else None

    async def waits(self, run_ids: Sequence[str]) -> Mapping[str, list[Wait]]:
        found: dict[str, list[Wait]] = {}
        unknown: list[str] = []
        for run_id in run_ids:
            kept = self._kept.open_of(run_id)
            found[run_id] = [] if kept is None else list(kept.waits)
            if kept is None:
                unknown.append(run_id)
        if unknown:
            for row in await self._database.fetch(self._queries.waits(unknown)):
                wait = wait_from(row)
                found[wait.run_id].append(wait)
        return found

    async def list_runs(
        self, viewer: Viewer, which: RunFilter, *, after: Place | None, limit: int
    ) -> list[Run]:
        return await self._runs(self._queries.lists.runs(viewer, which, after, limit))

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
        statement = self._logs.queries.events(
            run_id,
            after=after,
            limit=limit,
            kinds=kinds,
            except_kinds=except_kinds,
            through=through,
        )
        rows = await self._database.fetch(statement, max_bytes=max_bytes)
        return list(map(StoredEvent._make, rows))

    async def seal(self, run_id: str, *, through: int | None) -> int:
        run = await self.run(run_id)
        return 0 if run is None else await self._logs.seal(run, through)

    async def frames(self, run_id: str, *, after: int, limit_bytes: int) -> list[Frame]:
        return await self._logs.frames(run_id, after=after, limit_bytes=limit_bytes)

    async def unsealed(self, limit: int) -> list[str]:
        return await self._logs.unsealed(limit)

    async def approval(self, approval_id: str) -> Approval | None:
        rows = await self._database.fetch(self._queries.approval(approval_id))
        return approval_from(rows[0]) if rows else None

    async def list_approvals(
        self, viewer: Viewer, which: ApprovalFilter, *, after: Place | None, limit: int
    ) -> list[Approval]:
        statement = self._queries.lists.approvals(viewer, which, after, limit)
        return [approval_from(row) for row in await self._database.fetch(statement)]

    async def operation(self, operation_id: str) -> Operation | None:
        rows = await self._database.fetch(self._queries.operation(operation_id))
        return operation_from(rows[0]) if rows else None

    async def list_operations(
        self, viewer: Viewer, which: OperationFilter, *, after: Place | None, limit: int
    ) -> list[Operation]:
        statement = self._queries.lists.operations(viewer, which, after, limit)
        return [operation_from(row) for row in await self._database.fetch(statement)]

    async def artifact(self, artifact_id: str) -> Artifact | None:
        rows = await self._database.fetch(self._queries.artifact(artifact_id))
        return artifact_from(rows[0]) if rows else None

    async def list_artifacts(
        self, run_id: str, *, after: Place | None, limit: int
    ) -> list[Artifact]:
        statement = self._queries.lists.artifacts(run_id, after, limit)
        return [artifact_from(row) for row in await self._database.fetch(statement)]

    async def agent(self, agent_id: str) -> Agent | None:
        kept = self._kept.agent(agent_id)
        return kept or await self._agent(self._queries.agent(agent_id))

    async def agent_named(self, tenant: str, name: str) -> Agent | None:
        kept = self._kept.agent_named(tenant, name)
        return kept or await self._agent(self._queries.agent_named(tenant, name))

    async def _agent(self, statement: Statement) -> Agent | None:
        version = self._kept.agents_version
        rows = await self._database.fetch(statement)
        if not rows:
            return None
        agent = agent_from(rows[0])
        self._kept.learn_agent(agent, version)
        return agent

    async def list_agents(self, tenant: str, *, after: Place | None, limit: int) -> list[Agent]:
        statement = self._queries.lists.agents(tenant, after, limit)
        return [agent_from(row) for row in await self._database.fetch(statement)]

    async def revision(self, agent_id: str, revision: int) -> AgentRevision | None:
        kept = self._kept.revision(agent_id, revision)
        if kept is not None:
            return kept
        version = self._kept.agents_version
        rows = await self._database.fetch(self._queries.revision(agent_id, revision))
        if not rows:
            return None
        found = revision_from(rows[0])
        self._kept.learn_revision(found, version)
        return found

    async def list_revisions(
        self, agent_id: str, *, before: int | None, limit: int
    ) -> list[AgentRevision]:
        statement = self._queries.lists.revisions(agent_id, before, limit)
        return [revision_from(row) for row in await self._database.fetch(statement)]

    async def claimable(self, now_us: int, *, limit: int) -> list[Run]:
        if await self._has_queue():
            ids = self._kept.queue.claimable(now_us, limit)
            found = [self._kept.runs.run(run_id) for run_id in ids]
            runs = [run for run in found if run is not None]
            if len(runs) == len(found):
                return runs
        return await self._runs(self._queries.claimable(now_us, limit))

    async def next_ready_us(self) -> int | None:
        if await self._has_queue():
            return self._kept.queue.next_ready_us()
        return await self._time(self._queries.next_ready())

    async def _has_queue(self) -> bool:
        """Whether the queue is in memory; loads it where this process is the only writer."""
        queue = self._kept.queue
        if self._database.is_exclusive and not queue.is_loaded:
            # In the writer's queue, so that it is exactly what all commits before it left.
            await self._writer.run(self._queued, queue.load)
        return queue.is_loaded

    def _queued(self) -> Steps[list[Row]]:
        return _single(self._queries.queued())

    async def due_waits(self, now_us: int, *, limit: int) -> list[Wait]:
        rows = await self._database.fetch(self._queries.due_waits(now_us, limit))
        return [wait_from(row) for row in rows]

    async def next_due_us(self) -> int | None:
        return await self._time(self._queries.next_due())

    async def renew(self, owner: str, *, until_us: int) -> list[Lease]:
        rows = await self._writer.run(
            lambda: self._renewal(owner, until_us), lambda _: self._renewed(owner, until_us)
        )
        return [Lease(row[0], row[1], RunState(row[2]), row[3] is not None) for row in rows]

    def _renewal(self, owner: str, until_us: int) -> Steps[list[Row]]:
        asked = self._database.sql.now
        if asked is not None:
            # Leases end by the database's clock: it is that one which is moved ahead.
            found = yield asked
            until_us = found[0][0] + until_us - self._clock.now_us()
        rows = yield self._queries.renewal(owner, until_us)
        return rows

    def _renewed(self, owner: str, until_us: int) -> None:
        self._kept.runs.extend_leases(owner, until_us)

    async def orphans(self, now_us: int, *, alive: Sequence[str], limit: int) -> list[Run]:
        asked = self._database.sql.now
        if self._database.is_exclusive or asked is None:
            return await self._runs(self._queries.orphans(None, alive, limit))
        found = await self._database.fetch(asked)
        return await self._runs(self._queries.orphans(found[0][0], alive, limit))

    async def expired_roots(self, finished_before_us: int, *, limit: int) -> list[Run]:
        return await self._runs(self._queries.expired_roots(finished_before_us, limit))

    async def expired_uploads(self, now_us: int, *, limit: int) -> list[Artifact]:
        rows = await self._database.fetch(self._queries.expired_uploads(now_us, limit))
        return [artifact_from(row) for row in rows]

    async def blobs_in_use(self, sha256s: Sequence[str]) -> set[str]:
        rows = await self._database.fetch(self._queries.blobs_in_use(sha256s))
        return {row[0] for row in rows}

    async def prune_requests(self, before_us: int, *, limit: int) -> int:
        rows = await self._writer.run(
            lambda: _single(self._queries.stale_requests(before_us, limit)), lambda _: None
        )
        return len(rows)

    async def check(self) -> None:
        await self._database.check()

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._logs.close()
            await self._writer.close()
        finally:
            await self._database.close()

    async def _runs(self, statement: Statement) -> list[Run]:
        rows = await self._database.fetch(statement)
        return [run_from(row, inputs_from(row[-2:])) for row in rows]

    async def _time(self, statement: Statement) -> int | None:
        rows = await self._database.fetch(statement)
        time_us: int | None = rows[0][0] if rows else None
        return time_us


def _single(statement: Statement) -> Steps[list[Row]]:
    rows = yield statement
    return rows
