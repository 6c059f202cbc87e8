"""The tables, once, for both databases. Times are BIGINT microseconds, maps and lists JSON text."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _time(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _run_key(*, primary: bool = False) -> Column[str]:
    return Column(
        "run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=primary,
        nullable=False,
    )  # fmt: skip


runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    _text("tenant"),
    _text("starter"),
    _text("root_id"),
    _text("parent_id", null=True),
    _count("depth"),
    _text("agent_id"),
    _text("agent_name"),
    _count("agent_revision"),
    _text("agent_owner"),
    _text("session_id"),
    _text("rerun_of"),
    _time("create_us"),
    _text("title"),
    _text("labels"),
    _text("state"),
    _count("epoch"),
    _text("owner", null=True),
    _time("lease_until_us", null=True),
    _count("attempt"),
    _time("ready_us"),
    _text("pause", null=True),
    _count("last_sequence"),
    _count("oldest_sequence"),
    _time("start_us", null=True),
    _time("update_us"),
    _time("finish_us", null=True),
    _text("output_json", null=True),
    _text("output_artifact_id"),
    _text("error", null=True),
    _text("stop", null=True),
    _text("code_python"),
    _text("code_fingerprint"),
    _count("replay_after"),
    _time("active_us"),
    _time("claim_us", null=True),
    _count("message_count"),
    _count("child_count"),
    Index("runs_of_tenant", "tenant", "create_us", "id"),
    Index("runs_of_starter", "tenant", "starter", "create_us", "id"),
    Index("runs_of_agent_owner", "tenant", "agent_owner", "create_us", "id"),
    Index("runs_of_root", "root_id", "tenant", "create_us", "id"),
)
# SQLite uses a partial index only where a query says its condition in the very same words.
ACTIVE = text("state NOT IN ('FAILED', 'STOPPED', 'SUCCEEDED')")
FINISHED = text("state IN ('FAILED', 'STOPPED', 'SUCCEEDED')")
QUEUED = text("state = 'QUEUED'")
SESSION = text("session_id <> ''")
DRIVEN = text("state IN ('RUNNING', 'STOPPING')")
_parent = text("parent_id IS NOT NULL")
_owned = text("owner IS NOT NULL")
_done_root = text("parent_id IS NULL AND finish_us IS NOT NULL")
Index("runs_of_parent", runs.c.tenant, runs.c.parent_id, runs.c.create_us, runs.c.id,
      sqlite_where=_parent, postgresql_where=_parent)  # fmt: skip
Index("runs_active", runs.c.tenant, runs.c.state, runs.c.create_us, runs.c.id,
      sqlite_where=ACTIVE, postgresql_where=ACTIVE)  # fmt: skip
Index("runs_of_session", runs.c.tenant, runs.c.session_id, runs.c.create_us, runs.c.id,
      sqlite_where=SESSION, postgresql_where=SESSION)  # fmt: skip
Index("runs_claimable", runs.c.tenant, runs.c.ready_us, runs.c.id,
      sqlite_where=QUEUED, postgresql_where=QUEUED)  # fmt: skip
Index("runs_ready", runs.c.ready_us,
      sqlite_where=QUEUED, postgresql_where=QUEUED)  # fmt: skip
Index("runs_driven", runs.c.id,
      sqlite_where=DRIVEN, postgresql_where=DRIVEN)  # fmt: skip
Index("runs_owned", runs.c.owner,
      sqlite_where=_owned, postgresql_where=_owned)  # fmt: skip
Index("runs_done", runs.c.finish_us, runs.c.id,
      sqlite_where=_done_root, postgresql_where=_done_root)  # fmt: skip

# Apart from the row that every event rewrites: an input may be a megabyte.
run_inputs = Table(
    "run_inputs",
    metadata,
    _run_key(primary=True),
    _text("input_json"),
    _text("input_artifacts"),
)

# No foreign key: it would be looked up for each event. Deleting a run deletes its events by name.
run_events = Table(
    "run_events",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    _count("epoch"),
    _count("kind"),
    Column("body", LargeBinary, nullable=False),
    _time("time_us"),
    sqlite_with_rowid=False,
)

# Events again, as ready-made frames. Like them without a foreign key, and removed by name: a long
# log goes in steps behind its run.
segments = Table(
    "segments",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("first_sequence", Integer, primary_key=True, autoincrement=False),
    _count("last_sequence"),
    Column("frame", LargeBinary, nullable=False),
)

# Logs that want sealing, and how far they are.
sealings = Table(
    "sealings",
    metadata,
    _run_key(primary=True),
    _count("last_sequence"),
)

# Runs that are gone while their log still goes.
removals = Table(
    "removals",
    metadata,
    Column("run_id", Text, primary_key=True),
)

waits = Table(
    "waits",
    metadata,
    _run_key(primary=True),
    Column("step_id", Text, primary_key=True),
    _text("kind"),
    _time("since_us"),
    _time("until_us", null=True),
    _text("approval_id", null=True),
    _text("operation_id", null=True),
    _text("child_run_id", null=True),
    Column("ordinal", BigInteger, nullable=False),
)
_ends = text("until_us IS NOT NULL")
Index("waits_due", waits.c.until_us, sqlite_where=_ends, postgresql_where=_ends)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Text, primary_key=True),
    _text("tenant"),
    _run_key(),
    _text("root_id"),
    _text("step_id"),
    _text("agent_id"),
    _text("starter"),
    _text("approvers"),
    _text("kind"),
    _text("title"),
    _text("body"),
    _text("body_sha256"),
    _text("evidence_json"),
    _text("evidence_artifact_id"),
    _text("answer_schema_json"),
    _text("calls"),
    _time("create_us"),
    _text("state"),
    _time("expire_us", null=True),
    _time("decide_us", null=True),
    _text("decided_by"),
    _text("decision", null=True),
    _text("comment"),
    _text("answer_json"),
    Index("approvals_of_tenant", "tenant", "create_us", "id"),
    Index("approvals_of_run", "run_id", "state"),
    Index("approvals_listed_of_run", "tenant", "run_id", "create_us", "id"),
    Index("approvals_in_state", "tenant", "state", "create_us", "id"),
)

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    _text("tenant"),
    _run_key(),
    _text("root_id"),
    _text("starter"),
    _text("agent_owner"),
    _text("step_id"),
    _text("name"),
    _text("result_schema_json"),
    _text("token_sha256"),
    _time("create_us"),
    _text("state"),
    _time("expire_us", null=True),
    _time("complete_us", null=True),
    _text("completed_by"),
    _text("result_json", null=True),
    _text("error", null=True),
    Index("operations_of_run", "run_id", "tenant", "create_us", "id"),
    Index("operations_of_tenant", "tenant", "create_us", "id"),
)
_open = text("state = 'OPEN'")
Index("operations_open", operations.c.run_id,
      sqlite_where=_open, postgresql_where=_open)  # fmt: skip

# Only those that no agent has taken yet: what was said is in the log.
messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    _run_key(),
    _count("number"),
    Index("messages_of_run", "run_id", "number"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Text, primary_key=True),
    _text("tenant"),
    _text("owner"),
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), nullable=True),
    _text("step_id"),
    _text("name"),
    _text("media_type"),
    _time("size_bytes"),
    _text("sha256"),
    _time("create_us"),
    _time("expire_us", null=True),
    Index("artifacts_of_run", "run_id", "create_us", "id"),
    Index("artifacts_of_content", "sha256"),
)
_upload = text("run_id IS NULL")
Index("artifacts_expiring", artifacts.c.expire_us,
      sqlite_where=_upload, postgresql_where=_upload)  # fmt: skip

agents = Table(
    "agents",
    metadata,
    Column("id", Text, primary_key=True),
    _text("tenant"),
    _text("name"),
    _text("owner"),
    _text("source"),
    _count("revision"),
    _text("etag"),
    _time("create_us"),
    _time("update_us"),
    _time("delete_us", null=True),
    Index("agents_of_tenant", "tenant", "create_us", "id"),
)
_alive = text("delete_us IS NULL")
Index("agents_named", agents.c.tenant, agents.c.name, unique=True,
      sqlite_where=_alive, postgresql_where=_alive)  # fmt: skip

agent_revisions = Table(
    "agent_revisions",
    metadata,
    Column("agent_id", Text, ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    _time("create_us"),
    _text("created_by"),
    _text("description"),
    _text("blueprint"),
    _text("harness"),
    _text("instructions"),
    _text("model"),
    _text("model_settings_json"),
    _text("input_schema_json"),
    _text("output_schema_json"),
    _text("allowed_tools"),
    _text("highest_risk"),
    _text("env"),
    _text("limits"),
    Column("accepts_messages", Boolean, nullable=False),
    _text("approvers"),
    _text("allowed_users"),
    _text("extra_json"),
    _text("on_code_change"),
)

requests = Table(
    "requests",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    _text("body_sha256"),
    _text("result_id"),
    _time("create_us"),
    Index("requests_by_age", "create_us"),
)
