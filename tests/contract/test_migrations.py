from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SchemaMismatch, SqlStore, StoreError, migrate
from onbelay_server.adapters.sql.database import parsed
from onbelay_server.adapters.sql.tables import metadata
from onbelay_server.domain.agent import Limits, OnCodeChange
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.run import Pause
from onbelay_server.domain.state import RunState
from tests.contract.entities import (
    T0,
    append,
    make_approval,
    make_artifact,
    make_message,
    make_operation,
    make_revision,
    make_run,
    make_wait,
    put,
    start,
    whole_log,
)
from tests.manual_clock import ManualClock


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/er/store.db"
    return str(request.getfixturevalue("postgres_database"))


async def test_the_migrated_schema_is_that_of_the_tables(url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    await migrate(url)
    engine = create_async_engine(parsed(url))
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()


async def test_migrating_again_keeps_the_data(
    url: str, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    await migrate(url)
    store = await SqlStore.open(url, codec=codec, clock=clock)
    await start(store, make_run("r1"))
    await append(store, "r1", count=5)
    before = await store.run("r1")
    await store.close()

    await migrate(url)

    store = await SqlStore.open(url, codec=codec, clock=clock)
    try:
        assert await store.run("r1") == before
        assert await whole_log(store, "r1") == [1, 2, 3, 4, 5, 6]
    finally:
        await store.close()


RUN_OF_0001: dict[str, Any] = {
    "tenant": "acme", "starter": "user:ada", "root_id": "", "parent_id": None, "depth": 0,
    "agent_id": "agt_1", "agent_name": "greeter", "agent_revision": 1,
    "agent_owner": "user:owner", "session_id": "", "rerun_of": "", "create_us": T0, "title": "",
    "labels": "{}", "state": "RUNNING", "epoch": 2, "owner": None, "lease_until_us": None,
    "attempt": 0, "ready_us": T0, "pause_requested": False, "last_sequence": 1,
    "oldest_sequence": 1, "start_us": None, "update_us": T0 + 7, "finish_us": None,
    "output_json": None, "output_artifact_id": "", "error": None, "stop": None,
}  # fmt: skip
ROWS_OF_0001: list[tuple[str, dict[str, Any]]] = [
    ("agents", {
        "id": "agt_1", "tenant": "acme", "name": "greeter", "owner": "user:owner",
        "source": "API", "revision": 1, "etag": "e", "create_us": T0, "update_us": T0,
        "delete_us": None,
    }),
    ("agent_revisions", {
        "agent_id": "agt_1", "revision": 1, "create_us": T0, "created_by": "user:owner",
        "description": "", "blueprint": "", "harness": "PYTHON", "instructions": "", "model": "",
        "model_settings_json": "{}", "input_schema_json": "{}", "output_schema_json": "{}",
        "allowed_tools": "[]", "highest_risk": "READ", "env": "{}",
        "limits": json.dumps({"grace_seconds": 3.0}), "accepts_messages": True,
        "approvers": "[]", "allowed_users": "[]", "extra_json": "{}",
    }),
    ("runs", RUN_OF_0001 | {"id": "plain", "root_id": "plain"}),
    ("runs", RUN_OF_0001 | {"id": "asked", "root_id": "asked", "pause_requested": True}),
    ("runs", RUN_OF_0001 | {"id": "held", "root_id": "held", "state": "PAUSED"}),
    *(
        ("run_inputs", {"run_id": run_id, "input_json": '{"n":1}', "input_artifacts": "{}"})
        for run_id in ("plain", "asked", "held")
    ),
    ("run_events", {
        "run_id": "plain", "sequence": 1, "epoch": 2, "kind": 1, "body": b"x", "time_us": T0,
    }),
    ("waits", {
        "run_id": "plain", "step_id": "s1", "kind": "APPROVAL", "since_us": T0,
        "until_us": T0 + 9, "approval_id": "a1", "ordinal": 1,
    }),
    ("approvals", {
        "id": "a1", "tenant": "acme", "run_id": "plain", "root_id": "plain", "step_id": "step",
        "agent_id": "agt_1", "starter": "user:ada", "approvers": "[]", "kind": "PLAN",
        "title": "May I?", "body": "please", "body_sha256": "0" * 64, "evidence_json": "null",
        "evidence_artifact_id": "", "answer_schema_json": "", "calls": "[]",
        "requested_by": "greeter", "create_us": T0, "state": "PENDING", "expire_us": None,
        "decide_us": None, "decided_by": "", "decision": None, "comment": "", "answer_json": "",
    }),
    ("artifacts", {
        "id": "f1", "tenant": "acme", "owner": "user:ada", "run_id": "plain", "step_id": "",
        "name": "f1.txt", "media_type": "text/plain", "size_bytes": 3, "sha256": "a" * 64,
        "create_us": T0, "expire_us": None,
    }),
]  # fmt: skip


async def fill(url: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    engine = create_async_engine(parsed(url))
    try:
        async with engine.begin() as connection:
            for table, values in rows:
                names = ", ".join(values)
                places = ", ".join(f":{name}" for name in values)
                statement = sa.text(f"INSERT INTO {table} ({names}) VALUES ({places})")
                await connection.execute(statement, values)
    finally:
        await engine.dispose()


async def sent(url: str, *statements: str) -> None:
    engine = create_async_engine(parsed(url))
    try:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))
    finally:
        await engine.dispose()


async def test_only_a_missing_table_is_taken_for_a_missing_schema(
    url: str, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    await migrate(url)
    await sent(url, "DROP TABLE alembic_version")
    with pytest.raises(SchemaMismatch, match="no schema"):
        await SqlStore.open(url, codec=codec, clock=clock)
    await sent(url, "CREATE TABLE alembic_version (other VARCHAR(32))")
    with pytest.raises(StoreError, match="version_num") as refused:
        await SqlStore.open(url, codec=codec, clock=clock)
    assert not isinstance(refused.value, SchemaMismatch)


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    await migrate(url)
    await sent(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="9999"):
        await migrate(url)


async def test_what_the_first_schema_held_is_kept(
    url: str, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    await migrate(url, revision="0001")
    await fill(url, ROWS_OF_0001)
    with pytest.raises(SchemaMismatch, match="0001"):
        await SqlStore.open(url, codec=codec, clock=clock)

    await migrate(url)

    store = await SqlStore.open(url, codec=codec, clock=clock)
    try:
        before = {"state": RunState.RUNNING, "epoch": 2, "last_sequence": 1, "update_us": T0 + 7}
        pause = Pause(request_us=T0 + 7)
        plain = make_run("plain", **before)
        assert await store.run("plain") == plain
        assert await store.run("asked") == make_run("asked", pause=pause, **before)
        held = make_run("held", pause=pause, **(before | {"state": RunState.PAUSED}))
        assert await store.run("held") == held
        assert await whole_log(store, "plain") == [1]
        wait = (await store.waits(["plain"]))["plain"]
        assert [(one.step_id, one.approval_id, one.operation_id) for one in wait] == [
            ("s1", "a1", None)
        ]
        assert await store.approval("a1") == make_approval("a1", plain)
        assert await store.artifact("f1") == make_artifact("f1", "plain")
        expected = make_revision(
            "agt_1", 1, accepts_messages=True, limits=Limits(grace_seconds=3.0),
            on_code_change=OnCodeChange.HOLD,
        )  # fmt: skip
        assert await store.revision("agt_1", 1) == expected
    finally:
        await store.close()


async def test_deleting_a_migrated_run_takes_old_and_new_rows(
    url: str, codec: ProtoEventCodec, clock: ManualClock
) -> None:
    await migrate(url, revision="0001")
    await fill(url, ROWS_OF_0001)
    await migrate(url)
    store = await SqlStore.open(url, codec=codec, clock=clock)
    try:
        run = await store.run("plain")
        assert run is not None
        more = (make_operation("o1", run), make_message("plain", 1))
        await put(store, *more, make_wait("plain", "s2", operation_id="o1"))

        def delete(rows: Rows, _now_us: int) -> Change[None]:
            found = rows.run("plain")
            assert found is not None
            return Change(result=None, delete=[found])

        await store.write(Reads(runs=["plain"]), delete)

        assert await store.approval("a1") is None
        assert await store.operation("o1") is None
        assert await store.artifact("f1") is None
        assert await store.waits(["plain"]) == {"plain": []}
        assert await store.run("asked") is not None
    finally:
        await store.close()


async def test_a_server_that_is_not_there_is_named_without_its_password(
    codec: ProtoEventCodec, clock: ManualClock
) -> None:
    url = "postgresql://ada:s3cret@127.0.0.1:1/x"
    for attempt in (migrate(url), SqlStore.open(url, codec=codec, clock=clock)):
        with pytest.raises(StoreError) as refused:
            await attempt
        assert "s3cret" not in str(refused.value)
