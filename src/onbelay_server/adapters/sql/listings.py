"""Lists of the store as SQL, newest first unless said otherwise, each for the eyes that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from onbelay_server.adapters.sql.database import Sql, Statement
from onbelay_server.adapters.sql.prepared import Shapes, bound
from onbelay_server.adapters.sql.tables import (
    ACTIVE,
    SESSION,
    agent_revisions,
    agents,
    approvals,
    artifacts,
    operations,
    run_inputs,
    runs,
)
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.state import FINAL
from onbelay_server.ports.store import ApprovalFilter, OperationFilter, Place, RunFilter

Select = sa.Select[Any]
Condition = sa.ColumnElement[bool]

RUN_COLUMNS = (*runs.c, run_inputs.c.input_json, run_inputs.c.input_artifacts)
MOST = bound("most", sa.Integer)


class Listings:
    """Statements for lists, one for each shape of the question."""

    def __init__(self, sql: Sql, shapes: Shapes) -> None:
        self._sql = sql
        self._shapes = shapes

    def runs(self, viewer: Viewer, which: RunFilter, after: Place | None, limit: int) -> Statement:
        agents_named, states = list(which.agent_ids), [state.value for state in which.states]
        labels = sorted(which.labels.items())
        equal = {
            "session_id": which.session_id,
            "starter": which.starter,
            "parent_id": which.parent_id,
            "root_id": which.root_id,
        }
        given = tuple(name for name, value in equal.items() if value)
        from_us, before_us = which.created_from_us, which.created_before_us
        is_active = bool(states) and FINAL.isdisjoint(which.states)
        has_from, has_before = from_us is not None, before_us is not None

        def build() -> Select:
            column = runs.c
            wanted: list[Condition] = [column.tenant == text_("tenant"), *_behind(runs, after)]
            if agents_named:
                names = texts("agent", len(agents_named))
                wanted.append(sa.or_(column.agent_id.in_(names), column.agent_name.in_(names)))
            if states and not is_active:
                wanted.append(column.state.in_(texts("state", len(states))))
            wanted += [self._sql.label(column.labels, f"label_{at}") for at in range(len(labels))]
            wanted += [column[name] == text_(name) for name in given]
            if which.session_id:
                # Follows from the line above, and leads to the index of sessions.
                wanted.append(sa.and_(SESSION))
            if which.roots_only:
                wanted.append(column.parent_id.is_(None))
            if has_from:
                wanted.append(column.create_us >= bound("from_us", sa.BigInteger))
            if has_before:
                wanted.append(column.create_us < bound("before_us", sa.BigInteger))
            mine, owned = column.starter == text_("who"), column.agent_owner == text_("who")
            if is_active:
                # A walk for each state along the index of what is going on.
                seen = [] if viewer.is_admin else [sa.or_(mine, owned)]
                going = (column.state == name for name in texts("state", len(states)))
                return _merged([[*wanted, *seen, state, sa.and_(ACTIVE)] for state in going])
            if viewer.is_admin:
                return _merged([wanted])
            if which.parent_id or which.root_id or which.session_id:
                return _merged([[*wanted, sa.or_(mine, owned)]])
            # An OR would sort all that the viewer ever saw.
            return _merged([[*wanted, mine], [*wanted, owned, sa.not_(mine)]])

        made = self._shapes.of(
            ("runs", viewer.is_admin, len(agents_named), len(states), is_active, len(labels), given,
             which.roots_only, has_from, has_before, after is None),
            build,
        )  # fmt: skip
        values: dict[str, object] = numbered("agent", agents_named) | numbered("state", states)
        for at, (key, value) in enumerate(labels):
            values |= self._sql.label_values(f"label_{at}", key, value)
        values |= equal | {"from_us": from_us, "before_us": before_us, "who": viewer.principal}
        return made(**values, **_place(after), tenant=viewer.tenant, most=limit)

    def approvals(
        self, viewer: Viewer, which: ApprovalFilter, after: Place | None, limit: int
    ) -> Statement:
        states = [state.value for state in which.states]
        kinds = [kind.value for kind in which.kinds]

        def build() -> Select:
            column = approvals.c
            found = sa.select(approvals).join(runs, runs.c.id == column.run_id)
            found = found.where(column.tenant == text_("tenant"), *_behind(approvals, after))
            if not viewer.is_admin:
                seen = sa.or_(column.starter == text_("who"), runs.c.agent_owner == text_("who"))
                found = found.where(sa.or_(seen, self._decides("who")))
            if which.run_id:
                found = found.where(column.run_id == text_("run_id"))
            if states:
                found = found.where(column.state.in_(texts("state", len(states))))
            if kinds:
                found = found.where(column.kind.in_(texts("kind", len(kinds))))
            if which.agent_id:
                agent = text_("agent")
                found = found.where(sa.or_(column.agent_id == agent, runs.c.agent_name == agent))
            if which.evidence_artifact_id:
                found = found.where(column.evidence_artifact_id == text_("evidence"))
            if which.decidable_by:
                found = found.where(self._decides("decider"))
            return _newest(found, approvals)

        made = self._shapes.of(
            ("approvals", viewer.is_admin, bool(which.run_id), len(states), len(kinds),
             bool(which.agent_id), bool(which.decidable_by), bool(which.evidence_artifact_id),
             after is None),
            build,
        )  # fmt: skip
        values: dict[str, object] = numbered("state", states) | numbered("kind", kinds)
        for name, person in (("who", viewer.principal), ("decider", which.decidable_by)):
            values |= {name: person} | self._sql.listed_values(f"{name}_listed", person)
        values |= {"run_id": which.run_id, "agent": which.agent_id, "tenant": viewer.tenant}
        values["evidence"] = which.evidence_artifact_id
        return made(**values, **_place(after), most=limit)

    def _decides(self, name: str) -> Condition:
        column = approvals.c
        unlisted = sa.and_(column.approvers == sa.text("'[]'"), column.starter == text_(name))
        return sa.or_(self._sql.listed(column.approvers, f"{name}_listed"), unlisted)

    def operations(
        self, viewer: Viewer, which: OperationFilter, after: Place | None, limit: int
    ) -> Statement:
        states = [state.value for state in which.states]

        def build() -> Select:
            column, who = operations.c, text_("who")
            found = sa.select(operations).where(column.tenant == text_("tenant"))
            found = found.where(*_behind(operations, after))
            if not viewer.is_admin:
                found = found.where(sa.or_(column.starter == who, column.agent_owner == who))
            if which.run_id:
                found = found.where(column.run_id == text_("run_id"))
            if states:
                found = found.where(column.state.in_(texts("state", len(states))))
            return _newest(found, operations)

        shape = ("operations", viewer.is_admin, bool(which.run_id), len(states), after is None)
        values: dict[str, object] = numbered("state", states) | {"run_id": which.run_id}
        values |= {"tenant": viewer.tenant, "who": viewer.principal}
        return self._shapes.of(shape, build)(**values, **_place(after), most=limit)

    def artifacts(self, run_id: str, after: Place | None, limit: int) -> Statement:
        def build() -> Select:
            column = artifacts.c
            found = sa.select(artifacts).where(column.run_id == text_("run_id"))
            if after is not None:
                found = found.where(sa.tuple_(column.create_us, column.id) > _PLACE)
            return found.order_by(column.create_us, column.id).limit(MOST)

        made = self._shapes.of(("artifacts", after is None), build)
        return made(run_id=run_id, **_place(after), most=limit)

    def agents(self, tenant: str, after: Place | None, limit: int) -> Statement:
        def build() -> Select:
            column = agents.c
            wanted = (column.tenant == text_("tenant"), column.delete_us.is_(None))
            return _newest(sa.select(agents).where(*wanted, *_behind(agents, after)), agents)

        made = self._shapes.of(("agents", after is None), build)
        return made(tenant=tenant, **_place(after), most=limit)

    def revisions(self, agent_id: str, before: int | None, limit: int) -> Statement:
        def build() -> Select:
            column = agent_revisions.c
            found = sa.select(agent_revisions).where(column.agent_id == text_("agent_id"))
            if before is not None:
                found = found.where(column.revision < bound("before", sa.Integer))
            return found.order_by(column.revision.desc()).limit(MOST)

        made = self._shapes.of(("revisions", before is None), build)
        return made(agent_id=agent_id, before=before, most=limit)


def text_(name: str) -> sa.BindParameter[Any]:
    return bound(name, sa.Text)


def texts(name: str, count: int) -> list[sa.BindParameter[Any]]:
    return [text_(f"{name}_{at}") for at in range(count)]


def numbered(name: str, values: Sequence[object]) -> dict[str, object]:
    return {f"{name}_{at}": value for at, value in enumerate(values)}


_PLACE = sa.tuple_(bound("after_us", sa.BigInteger), text_("after_id"))


def _place(after: Place | None) -> dict[str, object]:
    return {} if after is None else {"after_us": after.create_us, "after_id": after.id}


def with_inputs() -> Select:
    return sa.select(*RUN_COLUMNS).join_from(runs, run_inputs, run_inputs.c.run_id == runs.c.id)


def _merged(walks: Sequence[Sequence[Condition]]) -> Select:
    """The newest runs that meet all conditions of one of the walks, each of which goes along an
    index. No run meets those of two."""
    if len(walks) == 1:
        return _newest(with_inputs().where(*walks[0]), runs)
    halves = [_newest(sa.select(runs.c.id).where(*wanted), runs).subquery() for wanted in walks]
    ids = sa.union_all(*(sa.select(half.c.id) for half in halves))
    return _newest(with_inputs().where(runs.c.id.in_(ids)), runs)


def _behind(table: sa.Table, after: Place | None) -> list[Condition]:
    return [] if after is None else [sa.tuple_(table.c.create_us, table.c.id) < _PLACE]


def _newest(found: Select, table: sa.Table) -> Select:
    return found.order_by(table.c.create_us.desc(), table.c.id.desc()).limit(MOST)
