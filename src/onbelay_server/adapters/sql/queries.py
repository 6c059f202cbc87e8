"""The reads of the store as SQL, each scoped by the eyes it is made for.

Every statement is compiled once; those with optional parts once for each shape of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from onbelay_server.adapters.sql.database import Sql, Statement
from onbelay_server.adapters.sql.listings import (
    MOST,
    RUN_COLUMNS,
    Listings,
    numbered,
    text_,
    texts,
    with_inputs,
)
from onbelay_server.adapters.sql.prepared import Shapes, bound
from onbelay_server.adapters.sql.statements import Lookup
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
    runs,
    waits,
)

Select = sa.Select[Any]
Condition = sa.ColumnElement[bool]

_RUN_NAMES = ", ".join(f"{column.table.name}.{column.name}" for column in RUN_COLUMNS)
_NOW = bound("now_us", sa.BigInteger)

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
        self._shapes = Shapes(sql.dialect)
        self.lists = Listings(sql, self._shapes)
        self._waits = Lookup(sql, waits, [waits.c.run_id], order="ordinal")
        self._blobs = Lookup(sql, [artifacts.c.sha256], [artifacts.c.sha256])

    def run(self, run_id: str) -> Statement:
        made = self._shapes.of("run", lambda: with_inputs().where(runs.c.id == text_("id")))
        return made(id=run_id)

    def waits(self, run_ids: Sequence[str]) -> Statement:
        return self._waits.of_ids(run_ids)

    def approval(self, approval_id: str) -> Statement:
        return self._by_id(approvals, approval_id)

    def operation(self, operation_id: str) -> Statement:
        return self._by_id(operations, operation_id)

    def artifact(self, artifact_id: str) -> Statement:
        return self._by_id(artifacts, artifact_id)

    def agent(self, agent_id: str) -> Statement:
        return self._by_id(agents, agent_id)

    def agent_named(self, tenant: str, name: str) -> Statement:
        column = agents.c
        made = self._shapes.of(
            "agent named",
            lambda: sa.select(agents).where(
                column.tenant == text_("tenant"),
                column.name == text_("name"),
                column.delete_us.is_(None),
            ),
        )
        return made(tenant=tenant, name=name)

    def revision(self, agent_id: str, revision: int) -> Statement:
        column = agent_revisions.c
        made = self._shapes.of(
            "revision",
            lambda: sa.select(agent_revisions).where(
                column.agent_id == text_("agent_id"),
                column.revision == bound("revision", sa.Integer),
            ),
        )
        return made(agent_id=agent_id, revision=revision)

    def claimable(self, now_us: int, limit: int) -> Statement:
        made = self._shapes.of(
            "claimable",
            lambda: sa.text(
                f"{_TENANTS}, first AS ({self._sql.first_of_tenants}) SELECT {_RUN_NAMES} "
                "FROM first JOIN runs ON runs.id = first.id "
                "JOIN run_inputs ON run_inputs.run_id = first.id "
                "ORDER BY first.turn, first.ready_us, first.id LIMIT :most"
            ).bindparams(_NOW, MOST),
        )
        return made(now_us=now_us, most=limit)

    def queued(self) -> Statement:
        """Id, tenant and ready time of all that is QUEUED."""
        column = runs.c
        made = self._shapes.of(
            "queued", lambda: sa.select(column.id, column.tenant, column.ready_us).where(QUEUED)
        )
        return made()

    def next_ready(self) -> Statement:
        made = self._shapes.of(
            "next ready", lambda: sa.select(sa.func.min(runs.c.ready_us)).where(QUEUED)
        )
        return made()

    def due_waits(self, now_us: int, limit: int) -> Statement:
        made = self._shapes.of(
            "due waits",
            lambda: (
                _unfinished(sa.select(waits))
                .where(waits.c.until_us <= _NOW)
                .order_by(waits.c.until_us)
                .limit(MOST)
            ),
        )
        return made(now_us=now_us, most=limit)

    def next_due(self) -> Statement:
        def build() -> Select:
            found = _unfinished(sa.select(waits.c.until_us)).where(waits.c.until_us.is_not(None))
            return found.order_by(waits.c.until_us).limit(1)

        return self._shapes.of("next due", build)()

    def orphans(self, now_us: int | None, alive: Sequence[str], limit: int) -> Statement:
        """`now_us` None: every owner not in `alive` is dead, whatever its lease says."""

        def build() -> Select:
            column = runs.c
            names = texts("alive", len(alive))
            dead: Condition = column.owner.not_in(names) if names else sa.true()
            if now_us is not None:
                dead = sa.and_(dead, sa.func.coalesce(column.lease_until_us, 0) <= _NOW)
            found = with_inputs().where(DRIVEN, sa.or_(column.owner.is_(None), dead))
            return found.order_by(column.id).limit(MOST)

        made = self._shapes.of(("orphans", now_us is None, len(alive)), build)
        return made(**numbered("alive", alive), now_us=now_us, most=limit)

    def expired_roots(self, before_us: int, limit: int) -> Statement:
        def build() -> Select:
            before, member = bound("before_us", sa.BigInteger), runs.alias()
            lives = sa.exists(
                sa.select(1).where(
                    member.c.root_id == runs.c.id,
                    sa.or_(member.c.finish_us.is_(None), member.c.finish_us >= before),
                )
            )
            found = with_inputs().where(
                runs.c.parent_id.is_(None),
                runs.c.finish_us.is_not(None),
                runs.c.finish_us < before,
                sa.not_(lives),
            )
            return found.order_by(runs.c.finish_us, runs.c.id).limit(MOST)

        return self._shapes.of("expired roots", build)(before_us=before_us, most=limit)

    def expired_uploads(self, now_us: int, limit: int) -> Statement:
        column = artifacts.c
        made = self._shapes.of(
            "expired uploads",
            lambda: (
                sa.select(artifacts)
                .where(column.run_id.is_(None), column.expire_us <= _NOW)
                .order_by(column.expire_us)
                .limit(MOST)
            ),
        )
        return made(now_us=now_us, most=limit)

    def blobs_in_use(self, sha256s: Sequence[str]) -> Statement:
        return self._blobs.of_ids(sha256s)

    def stale_requests(self, before_us: int, limit: int) -> Statement:
        """Deletes them and gives one row for each."""

        def build() -> sa.sql.ClauseElement:
            column = requests.c
            gone = sa.not_(sa.exists(sa.select(1).where(runs.c.id == column.result_id)))
            key = (column.tenant, column.principal, column.method, column.request_id)
            stale = sa.select(*key).where(column.create_us < bound("before_us", sa.BigInteger))
            stale = stale.where(gone).order_by(column.create_us).limit(MOST)
            removed = sa.delete(requests).where(sa.tuple_(*key).in_(stale))
            return removed.returning(column.request_id)

        return self._shapes.of("stale requests", build)(before_us=before_us, most=limit)

    def renewal(self, owner: str, until_us: int) -> Statement:
        """Extends the leases and gives what each run asks for."""
        column = runs.c
        made = self._shapes.of(
            "renewal",
            lambda: (
                sa.update(runs)
                .where(column.owner == text_("who"))
                .values(lease_until_us=bound("until_us", sa.BigInteger))
                .returning(column.id, column.epoch, column.state, column.pause)
            ),
        )
        return made(who=owner, until_us=until_us)

    def _by_id(self, table: sa.Table, row_id: str) -> Statement:
        made = self._shapes.of(
            (table.name, "by id"), lambda: sa.select(table).where(table.c.id == text_("id"))
        )
        return made(id=row_id)


def _unfinished(found: Select) -> Select:
    joined = found.join(runs, runs.c.id == waits.c.run_id)
    return joined.where(ACTIVE)
