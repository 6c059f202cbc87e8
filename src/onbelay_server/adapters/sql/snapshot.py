"""Looking at, and copying, a SQLite file that a server may have open."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from onbelay_server.adapters.sql.database import StoreError

SQLITE_VERSION = sqlite3.sqlite_version
"""Version of the SQLite library in this process."""

SAFE_CHECKPOINTS = (3, 51, 3)
"""From this version on two connections may checkpoint one write-ahead log."""

_PAGES_A_STEP = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteFile:
    """What a look at a file found."""

    size_bytes: int
    revision: str | None
    """Revision of the schema; None when there is none."""
    journal_mode: str


def checkpoints_are_safe() -> bool:
    """Whether this library is past the fault that a second checkpointing connection can meet."""
    return sqlite3.sqlite_version_info >= SAFE_CHECKPOINTS


def look(path: Path) -> SqliteFile:
    """What is in the file, without changing it. Raises StoreError when it cannot be read."""
    try:
        with closing(_opened(path)) as connection:
            (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            return SqliteFile(
                size_bytes=path.stat().st_size,
                revision=_revision(connection),
                journal_mode=journal_mode,
            )
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def copy(path: Path, target: Path) -> None:
    """Copy the file as of one moment, write-ahead log included, while others write.

    `target` must not exist; it is readable by its owner alone. Raises StoreError when either file
    fails, or the copy is not sound.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(_opened(path)) as source, closing(sqlite3.connect(target)) as copied:
            source.backup(copied, pages=_PAGES_A_STEP, sleep=0.01)
            # A copy is one file: nobody has to know of a log beside it.
            copied.execute("PRAGMA journal_mode=DELETE")
            problems = [row[0] for row in copied.execute("PRAGMA integrity_check(5)")]
            orphans = copied.execute("PRAGMA foreign_key_check").fetchall()
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path} cannot be copied to {target}: {error}") from error
    if problems != ["ok"] or orphans:
        raise StoreError(f"the copy {target} is not sound: {problems[0]}")


def artifact_hashes(path: Path) -> set[str]:
    """SHA-256 of every artifact the file knows. Raises StoreError when it cannot be read."""
    try:
        with closing(_opened(path)) as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT sha256 FROM artifacts")}
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def _opened(path: Path) -> sqlite3.Connection:
    # Read-only: this connection must never be the one that checkpoints.
    return sqlite3.connect(f"file:{path.as_posix()}?mode=ro", uri=True, timeout=10)


def _revision(connection: sqlite3.Connection) -> str | None:
    known = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
    ).fetchone()
    row = (
        connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    )
    return None if row is None else str(row[0])
