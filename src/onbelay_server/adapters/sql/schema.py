"""The version of the schema: brought to the newest by `migrate`, checked at every start."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from onbelay_server.adapters.sql.database import (
    Database,
    SchemaMismatch,
    Statement,
    StoreError,
    parsed,
)
from onbelay_server.adapters.sql.lock import FileLock

_FOLDER = Path(__file__).parent / "migrations"
_UNDEFINED_TABLE = "42P01"


async def migrate(url: str, *, revision: str = "head") -> None:
    """Bring the database that `url` names to the newest schema, or to `revision`; a SQLite file is
    made when it is absent, with rights for its owner only. Idempotent.

    Raises DatabaseInUse while a server has the file, SchemaMismatch for a schema this version does
    not know, StoreError when the database is out of reach.
    """
    address = parsed(url)
    lock: FileLock | None = None
    if address.get_backend_name() == "sqlite":
        lock = _made_file(str(address.database))
    try:
        await _upgrade(address, revision)
    except CommandError as error:
        raise SchemaMismatch(
            f"cannot migrate {address.render_as_string()}: {error}. Did a newer version make it?"
        ) from error
    except (DBAPIError, OSError) as error:
        raise StoreError(
            f"cannot migrate {address.render_as_string()}: {type(error).__name__}"
        ) from error
    finally:
        if lock is not None:
            lock.release()


def _made_file(name: str) -> FileLock:
    path = Path(name).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return lock


async def _upgrade(address: URL, revision: str) -> None:
    engine = create_async_engine(address)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run, revision)
    finally:
        await engine.dispose()


def _run(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


def head() -> str:
    """The revision this version was built for."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


async def check_schema(database: Database) -> None:
    """Raise SchemaMismatch unless the schema is exactly the one this version was built for; raises
    StoreError when the database does not let it be read."""
    try:
        rows = await database.fetch(Statement("SELECT version_num FROM alembic_version"))
    except Exception as error:
        if _is_missing_table(error):
            raise SchemaMismatch(
                "the database has no schema: run `onbelay migrate` first"
            ) from error
        if isinstance(error, sqlite3.Error) or _sqlstate(error):
            raise StoreError(f"the version of the schema cannot be read: {error}") from error
        raise
    found = rows[0][0] if rows else "none"
    if found != head():
        raise SchemaMismatch(
            f"the database has schema {found}, this version needs {head()}: run `onbelay migrate`, "
            "or the version that made it"
        )


def _is_missing_table(error: Exception) -> bool:
    # SQLite says so in words only.
    return _sqlstate(error) == _UNDEFINED_TABLE or (
        isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such table")
    )


def _sqlstate(error: Exception) -> str:
    """PostgreSQL's code of an error; its driver is an extra and cannot be asked for the class."""
    return getattr(error, "sqlstate", None) or ""
