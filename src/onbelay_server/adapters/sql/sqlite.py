"""SQLite: one file, one writing connection in a thread of its own, a few reading ones."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite

from onbelay_server.adapters.sql.database import (
    Column,
    SchemaMismatch,
    Statement,
    Steps,
    StoreError,
)
from onbelay_server.adapters.sql.lock import FileLock
from onbelay_server.adapters.sql.prepared import bound
from onbelay_server.adapters.sql.rows import Row
from onbelay_server.adapters.working_set import Conflict
from onbelay_server.domain.error import Unavailable
from onbelay_server.ports.failpoints import reach

T = TypeVar("T")

BUSY_SECONDS = 5.0
READERS = 2
CHECKPOINT_BYTES = 16 * 1024 * 1024
_OLDEST = (3, 35, 0)  # the first with RETURNING
_MAX_VARIABLES = 32_766
_MOST_ROWS = 128
_MOST_ODD_ROWS = 16
_UNIQUE = frozenset({sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE})
_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)


class SqliteSql:
    """SQL as SQLite spells it. Rows go in as one VALUES list a statement: each step of a statement
    gives up the interpreter lock and has to win it back."""

    dialect = SQLiteDialect_aiosqlite(paramstyle="qmark")
    lock = ""
    now = None
    first_of_tenants = (
        "SELECT r.id, r.ready_us, ROW_NUMBER() OVER "
        "(PARTITION BY r.tenant ORDER BY r.ready_us, r.id) AS turn "
        "FROM tenants JOIN runs AS r ON r.id IN (SELECT q.id FROM runs AS q "
        "WHERE q.state = 'QUEUED' AND q.tenant = tenants.tenant AND q.ready_us <= :now_us "
        "ORDER BY q.ready_us, q.id LIMIT :most)"
    )

    def among(self, columns: Sequence[Column]) -> str:
        # The keys travel as one JSON text, so that the statement is the same for any number.
        if len(columns) == 1:
            return f"{_qualified(columns[0])} IN (SELECT value FROM json_each(?))"
        left = ", ".join(_qualified(column) for column in columns)
        parts = ", ".join(f"json_extract(value, '$[{at}]')" for at in range(len(columns)))
        return f"({left}) IN (SELECT {parts} FROM json_each(?))"

    def keys(self, columns: Sequence[Column], keys: Sequence[Sequence[object]]) -> list[object]:
        values = [key[0] for key in keys] if len(columns) == 1 else [list(key) for key in keys]
        return [json.dumps(values)]

    def insert(
        self,
        table: sa.Table,
        rows: Sequence[Sequence[object]],
        *,
        replace: Sequence[Column] = (),
    ) -> list[Statement]:
        width = len(table.columns)
        return [
            Statement(_insert(table, width, len(chunk), tuple(replace)), _flat(chunk))
            for chunk in _chunks(rows, width)
        ]

    def update(
        self, table: sa.Table, columns: Sequence[Column], rows: Sequence[Sequence[object]]
    ) -> list[Statement]:
        named = tuple(columns)
        return [
            Statement(_update(table, named, len(chunk)), _flat(chunk))
            for chunk in _chunks(rows, len(named))
        ]

    def label(self, column: Column, name: str) -> sa.ColumnElement[bool]:
        pair = sa.func.json_each(column).table_valued("key", "value")
        key, value = bound(f"{name}_key", sa.Text), bound(f"{name}_value", sa.Text)
        return sa.exists(sa.select(1).where(pair.c.key == key, pair.c.value == value))

    def label_values(self, name: str, key: str, value: str) -> dict[str, object]:
        return {f"{name}_key": key, f"{name}_value": value}

    def listed(self, column: Column, name: str) -> sa.ColumnElement[bool]:
        item = sa.func.json_each(column).table_valued("value")
        return sa.exists(sa.select(1).where(item.c.value == bound(name, sa.Text)))

    def listed_values(self, name: str, value: str) -> dict[str, object]:
        return {name: value}


def _qualified(column: Column) -> str:
    return f"{column.table.name}.{column.name}"


def _chunks(rows: Sequence[Sequence[object]], width: int) -> Iterator[Sequence[Sequence[object]]]:
    # Few rows go in one statement; of many the sizes are powers of two, so that a few dozen
    # statements a table are compiled, whatever comes.
    most = min(_MOST_ROWS, _MAX_VARIABLES // width)
    at = 0
    while at < len(rows):
        size = min(len(rows) - at, most)
        if size > _MOST_ODD_ROWS:
            size = 1 << (size.bit_length() - 1)
        yield rows[at : at + size]
        at += size


def _flat(rows: Sequence[Sequence[object]]) -> list[object]:
    return list(chain.from_iterable(rows))


@lru_cache(maxsize=512)
def _insert(table: sa.Table, width: int, count: int, replace: tuple[Column, ...]) -> str:
    names = ", ".join(column.name for column in table.columns)
    row = f"({', '.join('?' * width)})"
    sql = f"INSERT INTO {table.name} ({names}) VALUES {', '.join([row] * count)}"
    if replace:
        key = ", ".join(column.name for column in table.primary_key)
        sets = ", ".join(f"{column.name} = excluded.{column.name}" for column in replace)
        sql += f" ON CONFLICT ({key}) DO UPDATE SET {sets}"
    return sql


@lru_cache(maxsize=512)
def _update(table: sa.Table, columns: tuple[Column, ...], count: int) -> str:
    sets = ", ".join(
        f"{column.name} = v.column{place}" for place, column in enumerate(columns[1:], 2)
    )
    row = f"({', '.join('?' * len(columns))})"
    values = ", ".join([row] * count)
    return (
        f"UPDATE {table.name} SET {sets} FROM (VALUES {values}) AS v "
        f"WHERE {_qualified(columns[0])} = v.column1"
    )


class SqliteDatabase:
    """The open file. Nobody else has it open: a lock beside it says so."""

    is_exclusive = True

    def __init__(self, path: Path, lock: FileLock, synchronous: str) -> None:
        self.sql = SqliteSql()
        self._path = path
        self._lock = lock
        self._synchronous = synchronous
        self._writer = self._connect()
        self._identity = _identity(path)
        # Kept open until the connections are closed: closing any descriptor of this file earlier
        # would drop the locks that SQLite holds on it.
        self._index = os.open(f"{path}-shm", os.O_RDONLY | os.O_CLOEXEC)
        self._page_bytes = int(self._writer.execute("PRAGMA page_size").fetchone()[0])
        self._checkpoint_frames = CHECKPOINT_BYTES // self._page_bytes
        self._next_checkpoint = self._checkpoint_frames
        self._readers: list[sqlite3.Connection] = []
        self._local = threading.local()
        self._writing = ThreadPoolExecutor(1, "onbelay-write")
        self._reading = ThreadPoolExecutor(READERS, "onbelay-read", initializer=self._add_reader)

    @classmethod
    def open(cls, name: str, *, synchronous: str) -> SqliteDatabase:
        """Open an existing file. Raises SchemaMismatch without one, DatabaseInUse, StoreError."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
        if synchronous not in ("FULL", "NORMAL"):
            raise StoreError(f"synchronous is FULL or NORMAL, not {synchronous!r}")
        path = Path(name).absolute()
        # An empty database in place of a lost one would look like a fresh start.
        if not path.exists():
            raise SchemaMismatch(f"no database at {path}: run `onbelay migrate` first")
        lock = FileLock(path)
        try:
            return cls(path, lock, synchronous)
        except sqlite3.Error as error:
            lock.release()
            raise StoreError(f"{path} cannot be opened: {error.sqlite_errorname}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection

    def _add_reader(self) -> None:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        self._local.connection = connection
        self._readers.append(connection)

    async def transact(self, make: Callable[[], Steps[T]]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writing, self._transact, make)

    def _transact(self, make: Callable[[], Steps[T]]) -> T:
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = _driven(connection, make())
            reach("before_commit")
            self._require_file()
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _translated(error) from error
            raise
        if self._frames() >= self._next_checkpoint:
            # Behind this transaction, so that nobody waits for it who is committed already.
            self._writing.submit(self._checkpoint)
        return result

    def _frames(self) -> int:
        # mxFrame of the WAL-index header: how long the log is, without asking SQLite.
        return int(struct.unpack_from("=I", os.pread(self._index, 4, 16))[0])

    def _checkpoint(self) -> None:
        frames = self._frames()
        if frames < self._next_checkpoint:
            return
        _, _, done = self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # The next write starts the log anew unless a reader still needs it: then it grows on, and
        # is tried again once it has grown by a quarter.
        self._next_checkpoint = (
            self._checkpoint_frames if done >= frames else frames + self._checkpoint_frames // 4
        )

    async def fetch(self, statement: Statement, *, max_bytes: int | None = None) -> list[Row]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, self._fetch, statement, max_bytes)

    def _fetch(self, statement: Statement, max_bytes: int | None) -> list[Row]:
        connection: sqlite3.Connection = self._local.connection
        try:
            cursor = connection.execute(statement.sql, tuple(statement.params))
            if max_bytes is None:
                return cursor.fetchall()
            return _bounded(cursor, max_bytes)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def _require_file(self) -> None:
        """SQLite would go on writing to a file that nobody finds again."""
        if _identity(self._path) != self._identity:
            raise Unavailable("the database file was removed or replaced", retry_after_seconds=5.0)

    async def check(self) -> None:
        self._require_file()
        await self.fetch(Statement("SELECT 1"))

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._reading.shutdown()
        self._writing.shutdown()
        for connection in self._readers:
            connection.close()
        self._writer.close()
        os.close(self._index)
        self._lock.release()


def _driven(connection: sqlite3.Connection, steps: Steps[T]) -> T:
    try:
        statement = next(steps)
        while True:
            rows = connection.execute(statement.sql, tuple(statement.params)).fetchall()
            statement = steps.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _bounded(rows: Iterator[Any], max_bytes: int) -> list[Row]:
    taken: list[Row] = []
    total = 0
    for row in rows:
        taken.append(row)
        total += len(row[-1])
        if total >= max_bytes:
            break
    return taken


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _translated(error: sqlite3.Error) -> Exception:
    # Errors of the binding itself, such as a value that is no SQL type, have no code.
    code = getattr(error, "sqlite_errorcode", None)
    if code in _UNIQUE:
        return Conflict(str(error))
    if code is not None and code & 0xFF in _AWAY:
        return Unavailable("the database is busy or away", retry_after_seconds=1.0)
    return error
