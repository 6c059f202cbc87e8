"""Durable execution: pauses with their reason, operations, messages, what a journal began with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _runs()
    op.add_column("waits", sa.Column("operation_id", sa.Text(), nullable=True))
    op.add_column("waits", sa.Column("child_run_id", sa.Text(), nullable=True))
    op.add_column("agent_revisions", _column("on_code_change", sa.Text(), "HOLD"))
    op.create_table(
        "operations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("root_id", sa.Text(), nullable=False),
        sa.Column("starter", sa.Text(), nullable=False),
        sa.Column("agent_owner", sa.Text(), nullable=False),
        sa.Column("step_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("result_schema_json", sa.Text(), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expire_us", sa.BigInteger(), nullable=True),
        sa.Column("complete_us", sa.BigInteger(), nullable=True),
        sa.Column("completed_by", sa.Text(), nullable=False),
        sa.Column("result_json", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("operations_of_run", "operations", ["run_id", "tenant", "create_us", "id"])
    op.create_index("operations_of_tenant", "operations", ["tenant", "create_us", "id"])
    still = sa.text("state = 'OPEN'")
    op.create_index(
        "operations_open", "operations", ["run_id"], sqlite_where=still, postgresql_where=still
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("messages_of_run", "messages", ["run_id", "number"])


def _runs() -> None:
    # Column by column: making the table anew would take every row that refers to it along.
    op.add_column("runs", sa.Column("pause", sa.Text(), nullable=True))
    op.add_column("runs", _column("code_python", sa.Text(), ""))
    op.add_column("runs", _column("code_fingerprint", sa.Text(), ""))
    op.add_column("runs", _column("replay_after", sa.Integer(), "0"))
    op.add_column("runs", _column("active_us", sa.BigInteger(), "0"))
    op.add_column("runs", sa.Column("claim_us", sa.BigInteger(), nullable=True))
    op.add_column("runs", _column("message_count", sa.Integer(), "0"))
    op.add_column("runs", _column("child_count", sa.Integer(), "0"))
    # Who asked for it was not kept; the last change is the nearest time that was.
    op.execute(
        sa.text(
            """UPDATE runs SET pause = '["",' || CAST(update_us AS TEXT) || ',"","",""]' """
            "WHERE pause_requested OR state = 'PAUSED'"
        )
    )
    op.drop_column("runs", "pause_requested")


def _column(name: str, kind: sa.types.TypeEngine[object], before: str) -> sa.Column[object]:
    """A column in which every row so far has the value `before`."""
    return sa.Column(name, kind, nullable=False, server_default=before)
