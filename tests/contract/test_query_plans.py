"""Every list and every question the engine asks goes along an index, however much there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from onbelay_server.adapters.sql import migrate
from onbelay_server.adapters.sql.database import Sql, Statement
from onbelay_server.adapters.sql.log_queries import LogQueries
from onbelay_server.adapters.sql.postgres import PostgresSql
from onbelay_server.adapters.sql.queries import Queries
from onbelay_server.adapters.sql.sqlite import SqliteSql
from onbelay_server.adapters.sql.statements import Statements
from onbelay_server.adapters.sql.tables import metadata
from onbelay_server.domain.state import ApprovalState, RunState
from onbelay_server.ports.store import ApprovalFilter, OperationFilter, Place, RunFilter
from tests.contract.entities import ADA, ADMIN, T0

TABLES = (
    "runs", "run_inputs", "run_events", "segments", "waits", "approvals", "operations", "messages",
    "artifacts", "requests",
)  # fmt: skip
RUNS = 5_000
PLACE = Place(T0 + 500, "r00500")
GOING = (RunState.RUNNING, RunState.WAITING_FOR_APPROVAL)

FILTERS = {
    "viewer": RunFilter(),
    "one state": RunFilter(states=[RunState.RUNNING]),
    "some states": RunFilter(states=GOING),
    "ended": RunFilter(states=[RunState.FAILED]),
    "agent": RunFilter(agent_ids=["agt_1"]),
    "label": RunFilter(labels={"team": "blue"}),
    "parent": RunFilter(parent_id="r00007"),
    "root": RunFilter(root_id="r00007"),
    "session": RunFilter(session_id="s7"),
    "roots": RunFilter(roots_only=True),
    "starter": RunFilter(starter="user:ada"),
    "time": RunFilter(created_from_us=T0 + 5, created_before_us=T0 + 900),
}
APPROVALS = {
    "inbox": ApprovalFilter(states=[ApprovalState.PENDING], decidable_by="user:ada"),
    "decidable": ApprovalFilter(decidable_by="user:ada"),
    "of run": ApprovalFilter(run_id="r00007"),
    "of agent": ApprovalFilter(agent_id="agt_1"),
}


def questions(sql: Sql) -> dict[str, Statement]:
    """Each by a name."""
    queries, logs, statements = Queries(sql), LogQueries(sql), Statements(sql)
    found: dict[str, Statement] = {}
    for who in (ADA, ADMIN):
        for after in (None, PLACE):
            where = f"of {who.principal}, {'first' if after is None else 'next'} page"
            for name, which in FILTERS.items():
                found[f"runs by {name} {where}"] = queries.lists.runs(who, which, after, 50)
            for name, asked in APPROVALS.items():
                found[f"approvals {name} {where}"] = queries.lists.approvals(who, asked, after, 50)
            for run_id in ("", "r00007"):
                made = queries.lists.operations(who, OperationFilter(run_id=run_id), after, 50)
                found[f"operations {run_id} {where}"] = made
    return found | {
        "claimable": queries.claimable(T0, 50),
        "queued": queries.queued(),
        "next ready": queries.next_ready(),
        "due waits": queries.due_waits(T0, 50),
        "next due": queries.next_due(),
        "orphans": queries.orphans(None, ["me"], 50),
        "orphans among others": queries.orphans(T0, ["me"], 50),
        "renewal": queries.renewal("me", 1),
        "expired roots": queries.expired_roots(T0, 50),
        "expired uploads": queries.expired_uploads(T0, 50),
        "stale requests": queries.stale_requests(T0, 50),
        "unsealed": logs.unsealed(50),
        "events": logs.events("r00007", after=1, limit=9, through=50),
        "frames": logs.frames("r00007", after=1, limit=9),
        "sizes": logs.event_sizes("r00007", 9),
        "waits of runs": queries.waits(["r00007", "r00008"]),
        "open operations": statements.open_operations.of_ids(["r00007"]),
        "messages": statements.messages.of_ids(["r00007"]),
        "pending": statements.pending.of_ids(["r00007"]),
        "tree": statements.tree_ids.of_ids(["r00007"]),
    }


async def test_sqlite_scans_no_table(tmp_path: Path) -> None:
    await migrate(f"sqlite:///{tmp_path}/store.db")
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        plans = {
            name: _sqlite_plan(connection, statement)
            for name, statement in questions(SqliteSql()).items()
        }
    aliases = (*TABLES, "r", "q", "runs_1", "segments_1")
    scans = {
        name: steps
        for name, steps in plans.items()
        for step in steps
        if step.startswith("SCAN ") and step.split()[1] in aliases and "INDEX" not in step
    }
    assert scans == {}
    for name, index in (
        ("runs by viewer of user:ada, next page", "runs_of_starter"),
        ("runs by viewer of user:root, next page", "runs_of_tenant"),
        ("runs by one state of user:ada, first page", "runs_active"),
        ("runs by some states of user:ada, first page", "runs_active"),
        ("runs by parent of user:ada, first page", "runs_of_parent"),
        ("runs by root of user:ada, first page", "runs_of_root"),
        ("runs by session of user:ada, first page", "runs_of_session"),
        ("runs by starter of user:root, first page", "runs_of_starter"),
        ("approvals inbox of user:ada, next page", "approvals_in_state"),
        ("approvals of run of user:ada, first page", "approvals_listed_of_run"),
        ("due waits", "waits_due"),
        ("claimable", "runs_claimable"),
        ("orphans", "runs_driven"),
        ("expired roots", "runs_done"),
    ):
        assert any(f"INDEX {index} " in f"{step} " for step in plans[name]), (name, plans[name])
    # A page of a list is not sorted out of all that there is.
    for name in (
        "runs by viewer of user:root, next page",
        "approvals inbox of user:ada, next page",
    ):
        assert not any("TEMP B-TREE" in step for step in plans[name]), plans[name]


def _sqlite_plan(connection: sqlite3.Connection, statement: Statement) -> Sequence[str]:
    found = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", tuple(statement.params))
    return [row[3] for row in found]


@pytest.mark.postgres
async def test_postgres_scans_no_table(postgres_database: str) -> None:
    await migrate(postgres_database)
    connection = await asyncpg.connect(postgres_database)
    try:
        for table, rows in FILLING.items():
            # Named, since migrated tables have later columns last.
            names = ", ".join(column.name for column in metadata.tables[table].c)
            await connection.execute(f"INSERT INTO {table} ({names}) {rows}")
            await connection.execute(f"ANALYZE {table}")
        # At this size a scan may be cheaper than an index. One that is left has no other way.
        await connection.execute("SET enable_seqscan = off")
        scans = {}
        for name, statement in questions(PostgresSql()).items():
            plan = await connection.fetch(f"EXPLAIN {statement.sql}", *statement.params)
            steps = [row[0] for row in plan]
            if any(f"Seq Scan on {table}" in step for step in steps for table in BIG):
                scans[name] = steps
    finally:
        await connection.close()
    text = "\n".join(f"{name}:\n  " + "\n  ".join(steps) for name, steps in scans.items())
    assert not scans, text


BIG = ("runs", "run_inputs", "run_events", "waits", "approvals", "operations", "requests")


_ID = "'r' || lpad(n::text, 5, '0')"
FILLING = {
    "runs": f"""SELECT {_ID}, 'acme',
    CASE WHEN n % 9 = 0 THEN 'user:ada' ELSE 'user:bob' || n % 50 END,
    {_ID}, CASE WHEN n % 4 = 0 THEN 'r' || lpad((n / 4)::text, 5, '0') END, 0, 'agt_' || n % 40,
    'agent' || n % 40, 1, CASE WHEN n % 70 = 0 THEN 'user:ada' ELSE 'user:owner' END,
    CASE WHEN n % 10 = 0 THEN 's' || n % 300 ELSE '' END, '', {T0} + n, '',
    CASE WHEN n % 3 = 0 THEN '{{"team":"blue"}}' ELSE '{{}}' END,
    CASE WHEN n % 200 = 0 THEN 'RUNNING' WHEN n % 200 = 1 THEN 'QUEUED'
    WHEN n % 50 = 2 THEN 'WAITING_FOR_APPROVAL' WHEN n % 60 = 3 THEN 'FAILED'
    ELSE 'SUCCEEDED' END, 1, CASE WHEN n % 200 = 0 THEN 'me' END, NULL, 0, {T0} + n, NULL, 50, 1,
    NULL, {T0} + n, CASE WHEN n % 200 > 2 AND n % 50 <> 2 THEN {T0} + n END, NULL, '', NULL, NULL,
    '', '', 0, 0, NULL, 0, 0 FROM generate_series(1, {RUNS}) AS n""",
    "run_inputs": f"SELECT {_ID}, '1', '{{}}' FROM generate_series(1, {RUNS}) AS n",
    "run_events": f"""SELECT {_ID}, k, 1, 1, 'x', {T0}
    FROM generate_series(1, 2000) AS n, generate_series(1, 20) AS k""",
    "waits": f"""SELECT {_ID}, 'step', 'TIMER', {T0}, {T0} + n, NULL, NULL, NULL, n
    FROM generate_series(1, {RUNS}) AS n""",
    "approvals": f"""SELECT 'a' || n, 'acme', {_ID}, {_ID}, 'step', 'agt_' || n % 40,
    CASE WHEN n % 9 = 0 THEN 'user:ada' ELSE 'user:bob' END,
    CASE WHEN n % 5 = 0 THEN '["user:ada"]' ELSE '[]' END, 'PLAN', '', '', '', '', '', '', '[]',
    {T0} + n, CASE WHEN n % 8 = 0 THEN 'PENDING' ELSE 'DECIDED' END, NULL, NULL, '', NULL, '',
    '' FROM generate_series(1, {RUNS}) AS n""",
    "operations": f"""SELECT 'o' || n, 'acme', {_ID}, {_ID}, 'user:bob' || n % 9,
    'user:owner', 'step', 'export', '', '', {T0} + n, 'OPEN', NULL, NULL, '', NULL, NULL
    FROM generate_series(1, {RUNS}) AS n""",
    "requests": f"""SELECT 'acme', 'user:ada', 'StartRun', 'q' || n, '', {_ID}, {T0} + n
    FROM generate_series(1, {RUNS}) AS n""",
}
