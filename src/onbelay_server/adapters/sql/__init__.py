"""The store over SQLite and PostgreSQL: the only place that knows SQL."""

from __future__ import annotations

from onbelay_server.adapters.sql.database import DatabaseInUse, SchemaMismatch, StoreError
from onbelay_server.adapters.sql.schema import migrate
from onbelay_server.adapters.sql.store import SqlStore

__all__ = ["DatabaseInUse", "SchemaMismatch", "SqlStore", "StoreError", "migrate"]
