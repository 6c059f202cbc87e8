"""Sealed segments: ready-made frames of a log, which logs want them, and logs being removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "segments",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("first_sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.Column("frame", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "first_sequence"),
    )
    op.create_table(
        "sealings",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "removals",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.execute(
        sa.text(
            "INSERT INTO sealings (run_id, last_sequence) SELECT id, 0 FROM runs "
            "WHERE last_sequence > 1000 OR "
            "(last_sequence > 128 AND state IN ('FAILED', 'STOPPED', 'SUCCEEDED'))"
        )
    )
