"""The reads of the store as SQL, each scoped by the eyes it is made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from onbelay_server.adapters.sql.database import Sql, Statement
from onbelay_server.adapters.sql.tables import (
    ACTIVE,
    DRIVEN,
    QUEUED,
    agent_revisions,
    agents,
    approvals,
    artifacts,
    operations,
    requests,
    run_events,
    run_inputs,
    runs,
    waits,
)
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.state import FINAL
from onbelay_server.ports.store import ApprovalFilter, OperationFilter, Place, RunFilter

Select = sa.Select[Any]

_FINAL = sorted(state.value for state in FINAL)
_RUN_COLUMNS = (*runs.c, run_inputs.c.input_json, run_inputs.c.input_artifacts)

# Walks from tenant to tenant along the index, however long the queue of one of them is.
_TENANTS = (
    "WITH RECURSIVE tenants(tenant) AS (SELECT min(tenant) FROM runs WHERE state = 'QUEUED' "
    "UNION ALL SELECT (SELECT min(r.tenant) FROM runs AS r WHERE r.state = 'QUEUED' "
    "AND r.tenant > tenants.tenant) FROM tenants WHERE tenants.tenant IS NOT NULL)"
)


class Queries:
    """Statements for reading, in the words of one kind of database."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        # Compiling costs more than reading a page of a log: once for each form of the question.
        self._events: dict[tuple[int, int, bool], Any] = {}
        self._run = self._made(_with_inputs().where(runs.c.id == "")).sql

    def run(self, run_id: str) -> Statement:
        return Statement(self._run, [run_id])

    def waits(self, run_ids: Sequence[str]) -> Statement:
        found = sa.select(waits).where(waits.c.run_id.in_(run_ids)).order_by(waits.c.ordinal)
        return self._made(found)

    def runs(self, viewer: Viewer, which: RunFilter, after: Place | None, limit: int) -> Statement:
        wanted = [runs.c.tenant == viewer.tenant, *self._filter(which)]
        wanted += _behind(runs, after)
        if viewer.is_admin:
            return self._made(_newest(_with_inputs().where(*wanted), runs, limit))
        # Two walks along an index, merged: an OR would sort all that the viewer ever saw.
        mine = runs.c.starter == viewer.principal
        owned = sa.and_(runs.c.agent_owner == viewer.principal, runs.c.starter != viewer.principal)
        halves = [
            _newest(sa.select(runs.c.id).where(*wanted, half), runs, limit).subquery()
            for half in (mine, owned)
        ]
        ids = sa.union_all(*(sa.select(half.c.id) for half in halves))
        return self._made(_newest(_with_inputs().where(runs.c.id.in_(ids)), runs, limit))

    def _filter(self, which: RunFilter) -> list[sa.ColumnElement[bool]]:
        column = runs.c
        wanted: list[sa.ColumnElement[bool]] = []
        if which.agent_ids:
            names = list(which.agent_ids)
            wanted.append(sa.or_(column.agent_id.in_(names), column.agent_name.in_(names)))
        if which.states:
            wanted.append(column.state.in_([state.value for state in which.states]))
            if FINAL.isdisjoint(which.states):
                # Follows from the line above, and leads to the index of what is going on.
                wanted.append(sa.and_(ACTIVE))
        for key, value in which.labels.items():
            wanted.append(self._sql.label(column.labels, key, value))
        for field, value in (
            (column.session_id, which.session_id),
            (column.starter, which.starter),
            (column.parent_id, which.parent_id),
            (column.root_id, which.root_id),
        ):
            if value:
                wanted.append(field == value)
        if which.roots_only:
            wanted.append(column.parent_id.is_(None))
        if which.created_from_us is not None:
            wanted.append(column.create_us >= which.created_from_us)
        if which.created_before_us is not None:
            wanted.append(column.create_us < which.created_before_us)
        return wanted

    def events(
        self,
        run_id: str,
        *,
        after: int,
        limit: int,
        kinds: Sequence[int],
        except_kinds: Sequence[int],
        through: int | None,
    ) -> Statement:
        shape = (len(kinds), len(except_kinds), through is not None)
        known = self._events.get(shape)
        if known is None:
            known = self._events[shape] = self._compiled(_events(*shape))
        values = dict(known.params) | {"run_id": run_id, "after": after, "most": limit}
        values["through"] = through
        values.update((f"kind_{at}", kind) for at, kind in enumerate(kinds))
        values.update((f"except_{at}", kind) for at, kind in enumerate(except_kinds))
        return Statement(str(known), [values[name] for name in known.positiontup or ()])

    def approval(self, approval_id: str) -> Statement:
        return self._made(sa.select(approvals).where(approvals.c.id == approval_id))

    def approvals(
        self, viewer: Viewer, which: ApprovalFilter, after: Place | None, limit: int
    ) -> Statement:
        column = approvals.c
        found = sa.select(approvals).join(runs, runs.c.id == column.run_id)
        found = found.where(column.tenant == viewer.tenant, *_behind(approvals, after))
        if not viewer.is_admin:
            who = viewer.principal
            seen = sa.or_(column.starter == who, runs.c.agent_owner == who)
            found = found.where(sa.or_(seen, self._decides(who)))
        if which.run_id:
            found = found.where(column.run_id == which.run_id)
        if which.states:
            found = found.where(column.state.in_([state.value for state in which.states]))
        if which.kinds:
            found = found.where(column.kind.in_([kind.value for kind in which.kinds]))
        if which.agent_id:
            wanted = sa.or_(column.agent_id == which.agent_id, runs.c.agent_name == which.agent_id)
            found = found.where(wanted)
        if which.decidable_by:
            found = found.where(self._decides(which.decidable_by))
        return self._made(_newest(found, approvals, limit))

    def _decides(self, principal: str) -> sa.ColumnElement[bool]:
        column = approvals.c
        unlisted = sa.and_(column.approvers == "[]", column.starter == principal)
        return sa.or_(self._sql.listed(column.approvers, principal), unlisted)

    def operation(self, operation_id: str) -> Statement:
        return self._made(sa.select(operations).where(operations.c.id == operation_id))

    def operations(
        self, viewer: Viewer, which: OperationFilter, after: Place | None, limit: int
    ) -> Statement:
        column, who = operations.c, viewer.principal
        found = sa.select(operations).where(column.tenant == viewer.tenant)
        found = found.where(*_behind(operations, after))
        if not viewer.is_admin:
            found = found.where(sa.or_(column.starter == who, column.agent_owner == who))
        if which.run_id:
            found = found.where(column.run_id == which.run_id)
        if which.states:
            found = found.where(column.state.in_([state.value for state in which.states]))
        return self._made(_newest(found, operations, limit))

    def artifact(self, artifact_id: str) -> Statement:
        return self._made(sa.select(artifacts).where(artifacts.c.id == artifact_id))

    def artifacts(self, run_id: str, after: Place | None, limit: int) -> Statement:
        column = artifacts.c
        found = sa.select(artifacts).where(column.run_id == run_id)
        if after is not None:
            place = sa.tuple_(sa.literal(after.create_us), sa.literal(after.id))
            found = found.where(sa.tuple_(column.create_us, column.id) > place)
        return self._made(found.order_by(column.create_us, column.id).limit(limit))

    def agent(self, agent_id: str) -> Statement:
        return self._made(sa.select(agents).where(agents.c.id == agent_id))

    def agent_named(self, tenant: str, name: str) -> Statement:
        alive = agents.c.delete_us.is_(None)
        found = sa.select(agents).where(agents.c.tenant == tenant, agents.c.name == name, alive)
        return self._made(found)

    def agents(self, tenant: str, after: Place | None, limit: int) -> Statement:
        found = sa.select(agents).where(agents.c.tenant == tenant, agents.c.delete_us.is_(None))
        return self._made(_newest(found.where(*_behind(agents, after)), agents, limit))

    def revision(self, agent_id: str, revision: int) -> Statement:
        column = agent_revisions.c
        found = sa.select(agent_revisions)
        return self._made(found.where(column.agent_id == agent_id, column.revision == revision))

    def revisions(self, agent_id: str, before: int | None, limit: int) -> Statement:
        column = agent_revisions.c
        found = sa.select(agent_revisions).where(column.agent_id == agent_id)
        if before is not None:
            found = found.where(column.revision < before)
        return self._made(found.order_by(column.revision.desc()).limit(limit))

    def claimable(self, now_us: int, limit: int) -> Statement:
        names = ", ".join(f"{column.table.name}.{column.name}" for column in _RUN_COLUMNS)
        built = sa.text(
            f"{_TENANTS}, first AS ({self._sql.first_of_tenants}) SELECT {names} FROM first "
            "JOIN runs ON runs.id = first.id JOIN run_inputs ON run_inputs.run_id = first.id "
            "ORDER BY first.turn, first.ready_us, first.id LIMIT :limit"
        )
        return self._made(built.bindparams(now_us=now_us, limit=limit))

    def next_ready(self) -> Statement:
        return self._made(sa.select(sa.func.min(runs.c.ready_us)).where(QUEUED))

    def due_waits(self, now_us: int, limit: int) -> Statement:
        found = _unfinished(sa.select(waits)).where(waits.c.until_us <= now_us)
        return self._made(found.order_by(waits.c.until_us).limit(limit))

    def next_due(self) -> Statement:
        found = _unfinished(sa.select(waits.c.until_us)).where(waits.c.until_us.is_not(None))
        return self._made(found.order_by(waits.c.until_us).limit(1))

    def orphans(self, now_us: int | None, alive: Sequence[str], limit: int) -> Statement:
        """`now_us` None: every owner not in `alive` is dead, whatever its lease says."""
        column = runs.c
        dead: sa.ColumnElement[bool] = column.owner.not_in(list(alive))
        if now_us is not None:
            dead = sa.and_(dead, sa.func.coalesce(column.lease_until_us, 0) <= now_us)
        found = _with_inputs().where(DRIVEN, sa.or_(column.owner.is_(None), dead))
        return self._made(found.order_by(column.id).limit(limit))

    def expired_roots(self, before_us: int, limit: int) -> Statement:
        member = runs.alias()
        ended = sa.and_(member.c.finish_us.is_not(None), member.c.finish_us < before_us)
        lives = sa.exists(
            sa.select(1).where(
                member.c.root_id == runs.c.id,
                sa.or_(member.c.finish_us.is_(None), sa.not_(ended)),
            )
        )
        found = _with_inputs().where(
            runs.c.parent_id.is_(None),
            runs.c.finish_us.is_not(None),
            runs.c.finish_us < before_us,
            sa.not_(lives),
        )
        return self._made(found.order_by(runs.c.finish_us, runs.c.id).limit(limit))

    def expired_uploads(self, now_us: int, limit: int) -> Statement:
        column = artifacts.c
        found = sa.select(artifacts).where(column.run_id.is_(None), column.expire_us <= now_us)
        return self._made(found.order_by(column.expire_us).limit(limit))

    def blobs_in_use(self, sha256s: Sequence[str]) -> Statement:
        column = artifacts.c.sha256
        return self._made(sa.select(column).where(column.in_(list(sha256s))).distinct())

    def stale_requests(self, before_us: int, limit: int) -> Statement:
        """Deletes them and gives one row for each."""
        column = requests.c
        gone = sa.not_(sa.exists(sa.select(1).where(runs.c.id == column.result_id)))
        key = (column.tenant, column.principal, column.method, column.request_id)
        stale = sa.select(*key).where(column.create_us < before_us, gone)
        stale = stale.order_by(column.create_us).limit(limit)
        removed = sa.delete(requests).where(sa.tuple_(*key).in_(stale))
        return self._made(removed.returning(column.request_id))

    def renewal(self, owner: str, until_us: int) -> Statement:
        """Extends the leases and gives what each run asks for."""
        column = runs.c
        extended = sa.update(runs).where(column.owner == owner).values(lease_until_us=until_us)
        return self._made(extended.returning(column.id, column.epoch, column.state, column.pause))

    def _made(self, built: sa.sql.ClauseElement) -> Statement:
        compiled = self._compiled(built)
        values = compiled.construct_params()
        return Statement(str(compiled), [values[name] for name in compiled.positiontup or ()])

    def _compiled(self, built: sa.sql.ClauseElement) -> Any:
        return built.compile(dialect=self._sql.dialect, compile_kwargs={"render_postcompile": True})


def _events(kinds: int, except_kinds: int, has_through: bool) -> Select:
    column = run_events.c
    found = (
        sa.select(column.sequence, column.kind, column.body)
        .where(
            column.run_id == sa.bindparam("run_id", type_=sa.Text),
            column.sequence > sa.bindparam("after", type_=sa.Integer),
        )
        .order_by(column.sequence)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )
    if kinds:
        found = found.where(sa.or_(*_each(column.kind, "kind", kinds)))
    if except_kinds:
        found = found.where(sa.not_(sa.or_(*_each(column.kind, "except", except_kinds))))
    if has_through:
        found = found.where(column.sequence <= sa.bindparam("through", type_=sa.Integer))
    return found


def _each(column: sa.Column[Any], name: str, count: int) -> list[sa.ColumnElement[bool]]:
    return [column == sa.bindparam(f"{name}_{at}", type_=sa.Integer) for at in range(count)]


def _with_inputs() -> Select:
    return sa.select(*_RUN_COLUMNS).join_from(runs, run_inputs, run_inputs.c.run_id == runs.c.id)


def _unfinished(found: Select) -> Select:
    joined = found.join(runs, runs.c.id == waits.c.run_id)
    return joined.where(runs.c.state.not_in(_FINAL))


def _behind(table: sa.Table, after: Place | None) -> list[sa.ColumnElement[bool]]:
    if after is None:
        return []
    place = sa.tuple_(sa.literal(after.create_us), sa.literal(after.id))
    return [sa.tuple_(table.c.create_us, table.c.id) < place]


def _newest(found: Select, table: sa.Table, limit: int) -> Select:
    return found.order_by(table.c.create_us.desc(), table.c.id.desc()).limit(limit)
