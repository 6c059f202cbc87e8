"""Approvals without the agent's name under `requested_by`: nothing read it, the run has it."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("approvals", "requested_by")
