"""How a log is put down for sealing: by the transaction that made it long, or by who seals it."""

from __future__ import annotations

from onbelay_server.adapters.sql.database import Sql
from onbelay_server.adapters.sql.tables import runs


def enlist_text(sql: Sql) -> str:
    """Notes that the logs of some runs want sealing, from where their segments end."""
    return (
        "INSERT INTO sealings (run_id, last_sequence) SELECT runs.id, "
        "coalesce((SELECT max(segments.last_sequence) FROM segments "
        "WHERE segments.run_id = runs.id), 0) "
        f"FROM runs WHERE {sql.among([runs.c.id])} ON CONFLICT (run_id) DO NOTHING"
    )
