"""What a transaction reads and writes, as SQL made once from the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from onbelay_server.adapters.changes import Changes
from onbelay_server.adapters.sql import tables
from onbelay_server.adapters.sql.agent_rows import agent_values, revision_values
from onbelay_server.adapters.sql.database import Sql, Statement
from onbelay_server.adapters.sql.enlisting import enlist_text
from onbelay_server.adapters.sql.open_rows import message_values, operation_values, wait_values
from onbelay_server.adapters.sql.rows import (
    approval_values,
    artifact_values,
    changed_run_values,
    input_values,
    request_values,
    run_values,
)

Column = sa.Column[Any]

_RUNS = tables.runs.c
RUN_CHANGES: Sequence[Column] = [_RUNS.id, *list(_RUNS)[13:]]
"""What `changed_run_values` holds."""
_FOUND_BY = (_RUNS.state, _RUNS.owner, _RUNS.ready_us, _RUNS.finish_us)
_KEPT = [at for at, column in enumerate(RUN_CHANGES) if column not in set(_FOUND_BY)]
_STAYED: Sequence[Column] = [RUN_CHANGES[at] for at in _KEPT]
"""Without the columns of the partial indexes, each of which would be rewritten for being named."""
_stayed_values = itemgetter(*_KEPT)
_ADVANCED: Sequence[Column] = [_RUNS.id, _RUNS.last_sequence, _RUNS.update_us]
_WAIT_CHANGES: Sequence[Column] = [
    tables.waits.c.kind,
    tables.waits.c.since_us,
    tables.waits.c.until_us,
    tables.waits.c.approval_id,
    tables.waits.c.operation_id,
    tables.waits.c.child_run_id,
]
_OPERATION_CHANGES: Sequence[Column] = list(tables.operations.c)[11:]
"""`state` and all behind it."""


class Lookup:
    """`SELECT … WHERE columns among keys`, with what follows it."""

    def __init__(
        self,
        sql: Sql,
        selected: sa.Table | Sequence[Column],
        by: Sequence[Column],
        *,
        also: str = "",
        order: str = "",
        lock: bool = False,
    ) -> None:
        columns = list(selected.columns) if isinstance(selected, sa.Table) else list(selected)
        table = columns[0].table
        names = ", ".join(f"{column.table.name}.{column.name}" for column in columns)
        self._sql = sql
        self._by = by
        self._text = (
            f"SELECT {names} FROM {table} WHERE {sql.among(by)}"
            + (f" AND {also}" if also else "")
            + (f" ORDER BY {order}" if order else "")
            + (sql.lock if lock else "")
        )

    def of(self, keys: Iterable[Sequence[object]]) -> Statement:
        return Statement(self._text, self._sql.keys(self._by, list(keys)))

    def of_ids(self, ids: Iterable[str]) -> Statement:
        return self.of([(name,) for name in ids])


class Statements:
    """Everything the writer says to one kind of database."""

    def __init__(self, sql: Sql) -> None:
        self.sql = sql
        waits, approvals, artifacts = tables.waits.c, tables.approvals.c, tables.artifacts.c
        agents, revisions, requests = tables.agents.c, tables.agent_revisions.c, tables.requests.c
        inputs, operations, messages = tables.run_inputs.c, tables.operations.c, tables.messages.c
        # Runs are locked in the order of their ids, before anything else: no circle can close.
        self.runs = Lookup(sql, tables.runs, [_RUNS.id], order="id", lock=True)
        self.tree_ids = Lookup(sql, [_RUNS.id], [_RUNS.root_id])
        self.inputs = Lookup(
            sql, [inputs.run_id, inputs.input_json, inputs.input_artifacts], [inputs.run_id]
        )
        self.waits = Lookup(sql, tables.waits, [waits.run_id], order="ordinal")
        self.pending = Lookup(
            sql, tables.approvals, [approvals.run_id], also="state = 'PENDING'", order="id",
            lock=True,
        )  # fmt: skip
        self.approvals = Lookup(sql, tables.approvals, [approvals.id], order="id", lock=True)
        self.open_operations = Lookup(
            sql, tables.operations, [operations.run_id], also="state = 'OPEN'", order="id",
            lock=True,
        )  # fmt: skip
        self.operations = Lookup(sql, tables.operations, [operations.id], order="id", lock=True)
        self.messages = Lookup(sql, tables.messages, [messages.run_id])
        self.artifacts = Lookup(sql, tables.artifacts, [artifacts.id], order="id", lock=True)
        self.artifacts_of = Lookup(sql, tables.artifacts, [artifacts.run_id])
        self.agents = Lookup(sql, tables.agents, [agents.id], order="id", lock=True)
        self.agents_named = Lookup(
            sql, tables.agents, [agents.tenant, agents.name], also="delete_us IS NULL"
        )
        self.revisions = Lookup(
            sql, tables.agent_revisions, [revisions.agent_id, revisions.revision]
        )
        self.requests = Lookup(
            sql,
            tables.requests,
            [requests.tenant, requests.principal, requests.method, requests.request_id],
        )
        self._enlist = enlist_text(sql)

    def writes(self, changes: Changes, ordinal: int) -> list[Statement]:
        """The changes of one transaction, one batched statement a table and kind of change.
        Waits are numbered from `ordinal` on."""
        return [*self._deletes(changes), *self._inserts(changes, ordinal), *self._updates(changes)]

    def _deletes(self, changes: Changes) -> list[Statement]:
        found: list[Statement] = []
        if changes.waits.gone:
            waits = tables.waits.c
            found += self._delete([waits.run_id, waits.step_id], list(changes.waits.gone))
        if changes.messages.gone:
            gone = [(key,) for key in changes.messages.gone]
            found += self._delete([tables.messages.c.id], gone)
        if changes.artifacts.gone:
            gone = [(key,) for key in changes.artifacts.gone]
            found += self._delete([tables.artifacts.c.id], gone)
        if changes.runs.gone:
            at_once = [(key,) for key in changes.runs.gone if key not in changes.removed]
            if at_once:
                found += self._delete([tables.run_events.c.run_id], at_once)
                found += self._delete([tables.segments.c.run_id], at_once)
            if changes.removed:
                marks = [(key,) for key in changes.removed]
                found += self.sql.insert(tables.removals, marks)
            found += self._delete([_RUNS.id], [(key,) for key in changes.runs.gone])
        if changes.agents.gone:
            gone = [(key,) for key in changes.agents.gone]
            found += self._delete([tables.agents.c.id], gone)
        return found

    def _delete(self, by: Sequence[Column], keys: Sequence[Sequence[object]]) -> list[Statement]:
        text = f"DELETE FROM {by[0].table} WHERE {self.sql.among(by)}"
        return [Statement(text, self.sql.keys(by, keys))]

    def _inserts(self, changes: Changes, ordinal: int) -> list[Statement]:
        insert = self.sql.insert
        found: list[Statement] = []
        if changes.runs.new:
            runs = list(changes.runs.new.values())
            found += insert(tables.runs, [run_values(run) for run in runs])
            found += insert(tables.run_inputs, [input_values(run) for run in runs])
        if changes.agents.new:
            rows = [agent_values(row) for row in changes.agents.new.values()]
            found += insert(tables.agents, rows)
        if changes.revisions.new:
            rows = [revision_values(row) for row in changes.revisions.new.values()]
            found += insert(tables.agent_revisions, rows)
        if changes.requests.new:
            rows = [request_values(row) for row in changes.requests.new.values()]
            found += insert(tables.requests, rows)
        if changes.events:
            rows = [row for rows in changes.events for row in rows.values()]
            found += insert(tables.run_events, rows)
        if changes.waits.new:
            rows = [
                wait_values(wait, number)
                for number, wait in enumerate(changes.waits.new.values(), ordinal)
            ]
            found += insert(tables.waits, rows, replace=_WAIT_CHANGES)
        if changes.approvals.new:
            rows = [approval_values(row) for row in changes.approvals.new.values()]
            found += insert(tables.approvals, rows)
        if changes.operations.new:
            rows = [operation_values(row) for row in changes.operations.new.values()]
            found += insert(tables.operations, rows, replace=_OPERATION_CHANGES)
        if changes.messages.new:
            rows = [message_values(row) for row in changes.messages.new.values()]
            found += insert(tables.messages, rows)
        if changes.artifacts.new:
            rows = [artifact_values(row) for row in changes.artifacts.new.values()]
            found += insert(tables.artifacts, rows)
        return found

    def _updates(self, changes: Changes) -> list[Statement]:
        found: list[Statement] = []
        rows: list[tuple[object, ...]]
        if changes.advanced:
            runs = changes.advanced.values()
            rows = [(run.id, run.last_sequence, run.update_us) for run in runs]
            found += self.sql.update(tables.runs, _ADVANCED, rows)
        if changes.runs.changed:
            moved = [run for run in changes.runs.changed.values() if run.id in changes.moved]
            stayed = [run for run in changes.runs.changed.values() if run.id not in changes.moved]
            rows = [changed_run_values(run) for run in moved]
            found += self.sql.update(tables.runs, RUN_CHANGES, rows)
            rows = [_stayed_values(changed_run_values(run)) for run in stayed]
            found += self.sql.update(tables.runs, _STAYED, rows)
        if changes.long:
            keys = self.sql.keys([_RUNS.id], [(run_id,) for run_id in changes.long])
            found.append(Statement(self._enlist, keys))
        for table, rows in (
            (tables.approvals, [approval_values(r) for r in changes.approvals.changed.values()]),
            (tables.artifacts, [artifact_values(r) for r in changes.artifacts.changed.values()]),
            (tables.agents, [agent_values(r) for r in changes.agents.changed.values()]),
        ):
            if rows:
                found += self.sql.update(table, list(table.columns), rows)
        return found
