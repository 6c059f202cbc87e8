"""What a database must offer, and which one an address names.

Here is where the two databases differ, with `sqlite.py` and `postgres.py` behind it: everything
above writes one kind of SQL and one kind of transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError

from onbelay_server.adapters.sql.rows import Row

T = TypeVar("T")
Column = sa.Column[Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL ready for the driver, with its values by position."""

    sql: str
    params: Sequence[object] = ()


Steps = Generator[Statement, list[Row], T]
"""A transaction written without I/O: it yields a statement and is sent its rows."""


class StoreError(Exception):
    """The database cannot be used as it is. The text is one line for the operator."""


class SchemaMismatch(StoreError):
    """The schema is not the one this version was built for."""


class DatabaseInUse(StoreError):
    """Another process owns the database file."""


class Sql(Protocol):
    """How one database spells what the statements need."""

    @property
    def dialect(self) -> Dialect:
        """For compiling Core constructs."""
        ...

    @property
    def lock(self) -> str:
        """Behind a SELECT whose rows will be changed."""
        ...

    @property
    def now(self) -> Statement | None:
        """Gives the database's time in microseconds; None where the process's own clock counts."""
        ...

    @property
    def first_of_tenants(self) -> str:
        """A SELECT of id, ready_us and turn: of each row of `tenants` the first `:most` runs that
        are QUEUED and ready at `:now_us`, `turn` counting from 1 in each."""
        ...

    def among(self, columns: Sequence[Column]) -> str:
        """A condition that the columns equal one of some keys: those of `keys`."""
        ...

    def keys(self, columns: Sequence[Column], keys: Sequence[Sequence[object]]) -> list[object]:
        """The parameters of `among`."""
        ...

    def insert(
        self,
        table: sa.Table,
        rows: Sequence[Sequence[object]],
        *,
        replace: Sequence[Column] = (),
    ) -> list[Statement]:
        """Insert whole rows; where the primary key is taken, set the columns in `replace`. Without
        them a taken key is a Conflict."""
        ...

    def update(
        self, table: sa.Table, columns: Sequence[Column], rows: Sequence[Sequence[object]]
    ) -> list[Statement]:
        """Set columns of rows found by the first of `columns`, whose value comes first in a row."""
        ...

    def label(self, column: Column, name: str) -> sa.ColumnElement[bool]:
        """The JSON object in `column` has the pair that `label_values` gives for this name."""
        ...

    def label_values(self, name: str, key: str, value: str) -> dict[str, object]:
        """The values bound by a `label` condition of this name."""
        ...

    def listed(self, column: Column, name: str) -> sa.ColumnElement[bool]:
        """The JSON array in `column` has the string that `listed_values` gives for this name."""
        ...

    def listed_values(self, name: str, value: str) -> dict[str, object]:
        """The values bound by a `listed` condition of this name."""
        ...


class Database(Protocol):
    """A connection for writing and some for reading."""

    @property
    def sql(self) -> Sql: ...

    @property
    def is_exclusive(self) -> bool:
        """Nobody else writes while this process has it open."""
        ...

    async def transact(self, make: Callable[[], Steps[T]]) -> T:
        """Run the steps as one transaction. When it raises, nothing was written; but when it raises
        Unavailable, the commit itself may have been under way.

        One at a time. Raises what the steps raise, Conflict, and Unavailable when the database is
        away or busy.
        """
        ...

    async def fetch(self, statement: Statement, *, max_bytes: int | None = None) -> list[Row]:
        """Read outside any transaction of the writer. With `max_bytes`, stop behind the row whose
        last column makes the sum of the last columns' lengths reach it. Raises Unavailable."""
        ...

    async def check(self) -> None:
        """Raises Unavailable when the database does not answer as the one that was opened."""
        ...

    async def close(self) -> None: ...


def parsed(url: str) -> URL:
    """The address of a database. Raises StoreError for one that is of no supported kind."""
    try:
        found = make_url(url)
    except ArgumentError:
        raise StoreError("the database address is not a URL such as sqlite:///onbelay.db") from None
    backend = found.get_backend_name()
    if backend == "sqlite":
        if not found.database or found.database == ":memory:":
            raise StoreError("sqlite needs a file: sqlite:///onbelay.db")
        return found.set(drivername="sqlite+aiosqlite")
    if backend in ("postgresql", "postgres"):
        return found.set(drivername="postgresql+asyncpg")
    raise StoreError(f"no support for databases of the kind {backend!r}")


async def open_database(url: str, *, synchronous: str) -> Database:
    """Open what `url` names; `synchronous` is FULL or NORMAL and counts for SQLite."""
    address = parsed(url)
    if address.get_backend_name() == "sqlite":
        from onbelay_server.adapters.sql.sqlite import SqliteDatabase

        return SqliteDatabase.open(str(address.database), synchronous=synchronous)
    # The driver of PostgreSQL is an extra: without it SQLite must still work.
    try:
        from onbelay_server.adapters.sql.postgres import PostgresDatabase
    except ImportError:
        raise StoreError("PostgreSQL needs the extra onbelay-server[postgres]") from None
    return await PostgresDatabase.open(address)
