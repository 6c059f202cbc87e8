"""Runs migrations on the connection that `schema.migrate` hands over."""

from __future__ import annotations

from alembic import context

from onbelay_server.adapters.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters a table by making it anew.
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
