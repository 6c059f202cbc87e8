"""PostgreSQL: one connection for the writer, a pool for reads, time from the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import URL

from onbelay_server.adapters.sql.database import Column, Statement, Steps, StoreError
from onbelay_server.adapters.sql.prepared import bound
from onbelay_server.adapters.sql.rows import Row
from onbelay_server.adapters.working_set import Conflict
from onbelay_server.domain.error import Unavailable
from onbelay_server.ports.failpoints import pass_by

T = TypeVar("T")

READERS = 8
CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 30.0
_RETRIED = (
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What the driver says of a connection that the server ended between two statements.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
)


class PostgresSql:
    """SQL as PostgreSQL spells it: any number of rows or keys are arrays, one for each column."""

    dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
    lock = " FOR UPDATE"
    now = Statement("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")

    first_of_tenants = (
        "SELECT q.id, q.ready_us, q.turn FROM tenants CROSS JOIN LATERAL ("
        "SELECT r.id, r.ready_us, ROW_NUMBER() OVER (ORDER BY r.ready_us, r.id) AS turn "
        "FROM runs AS r WHERE r.state = 'QUEUED' AND r.tenant = tenants.tenant "
        "AND r.ready_us <= :now_us ORDER BY r.ready_us, r.id LIMIT :most) AS q"
    )

    def among(self, columns: Sequence[Column]) -> str:
        arrays = ", ".join(f"${at}::{_type(column)}[]" for at, column in enumerate(columns, 1))
        if len(columns) == 1:
            return f"{_qualified(columns[0])} = ANY({arrays})"
        left = ", ".join(_qualified(column) for column in columns)
        return f"({left}) IN (SELECT * FROM unnest({arrays}))"

    def keys(self, columns: Sequence[Column], keys: Sequence[Sequence[object]]) -> list[object]:
        return [[key[at] for key in keys] for at in range(len(columns))]

    def insert(
        self,
        table: sa.Table,
        rows: Sequence[Sequence[object]],
        *,
        replace: Sequence[Column] = (),
    ) -> list[Statement]:
        return [Statement(_insert(table, tuple(replace)), _turned(rows))] if rows else []

    def update(
        self, table: sa.Table, columns: Sequence[Column], rows: Sequence[Sequence[object]]
    ) -> list[Statement]:
        return [Statement(_update(table, tuple(columns)), _turned(rows))] if rows else []

    def label(self, column: Column, name: str) -> sa.ColumnElement[bool]:
        return _contains(column, name)

    def label_values(self, name: str, key: str, value: str) -> dict[str, object]:
        return {name: json.dumps({key: value})}

    def listed(self, column: Column, name: str) -> sa.ColumnElement[bool]:
        return _contains(column, name)

    def listed_values(self, name: str, value: str) -> dict[str, object]:
        return {name: json.dumps([value])}


def _contains(column: Column, name: str) -> sa.ColumnElement[bool]:
    # As text, since the driver itself is called, without SQLAlchemy's conversion of parameters.
    wanted = sa.cast(bound(name, sa.Text), JSONB)
    return sa.cast(column, JSONB).contains(wanted)


def _qualified(column: Column) -> str:
    return f"{column.table.name}.{column.name}"


def _type(column: Column) -> str:
    return str(column.type.compile(dialect=PostgresSql.dialect)).lower()


def _turned(rows: Sequence[Sequence[object]]) -> list[object]:
    return [list(column) for column in zip(*rows, strict=True)]


@lru_cache(maxsize=64)
def _insert(table: sa.Table, replace: tuple[Column, ...]) -> str:
    names = ", ".join(column.name for column in table.columns)
    arrays = ", ".join(f"${at}::{_type(column)}[]" for at, column in enumerate(table.columns, 1))
    sql = f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})"
    if replace:
        key = ", ".join(column.name for column in table.primary_key)
        sets = ", ".join(f"{column.name} = excluded.{column.name}" for column in replace)
        sql += f" ON CONFLICT ({key}) DO UPDATE SET {sets}"
    return sql


@lru_cache(maxsize=64)
def _update(table: sa.Table, columns: tuple[Column, ...]) -> str:
    sets = ", ".join(f"{column.name} = v.{column.name}" for column in columns[1:])
    arrays = ", ".join(f"${at}::{_type(column)}[]" for at, column in enumerate(columns, 1))
    names = ", ".join(column.name for column in columns)
    return (
        f"UPDATE {table.name} SET {sets} FROM unnest({arrays}) AS v({names}) "
        f"WHERE {_qualified(columns[0])} = v.{columns[0].name}"
    )


class PostgresDatabase:
    """Connections to one database, which other processes may use too."""

    is_exclusive = False

    def __init__(self, address: str, pool: asyncpg.Pool) -> None:
        self.sql = PostgresSql()
        self._address = address
        self._pool = pool
        self._writer: asyncpg.Connection | None = None

    @classmethod
    async def open(cls, address: URL) -> PostgresDatabase:
        """Connect. Raises StoreError when the server cannot be reached or refuses."""
        plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            pool = await asyncpg.create_pool(
                plain,
                min_size=1,
                max_size=READERS,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                reset=_keep,
            )
        except (asyncpg.PostgresError, *_AWAY) as error:
            # The driver's text may hold the address with its password.
            raise StoreError(
                f"cannot connect to {address.render_as_string()}: {type(error).__name__}"
            ) from None
        return cls(plain, pool)

    async def transact(self, make: Callable[[], Steps[T]]) -> T:
        try:
            connection = await self._connected()
            transaction = connection.transaction(isolation="read_committed")
            await transaction.start()
            try:
                result = await _driven(connection, make())
                await pass_by("before_commit")
            except BaseException:
                await self._roll_back(transaction)
                raise
            await transaction.commit()
        except _RETRIED as error:
            raise Conflict(type(error).__name__) from error
        except _AWAY as error:
            self._drop()
            raise _unavailable() from error
        return result

    async def _connected(self) -> asyncpg.Connection:
        if self._writer is None or self._writer.is_closed():
            self._writer = await asyncpg.connect(
                self._address, timeout=CONNECT_SECONDS, command_timeout=STATEMENT_SECONDS
            )
        return self._writer

    async def _roll_back(self, transaction: Any) -> None:
        try:
            await transaction.rollback()
        except (asyncpg.PostgresError, *_AWAY):
            # The server rolls back what a lost connection had begun; what led here is raised.
            self._drop()

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.terminate()
            self._writer = None

    async def fetch(self, statement: Statement, *, max_bytes: int | None = None) -> list[Row]:
        try:
            async with self._pool.acquire() as connection:
                if max_bytes is None:
                    rows: list[Row] = await connection.fetch(statement.sql, *statement.params)
                    return rows
                return await _bounded(connection, statement, max_bytes)
        except _AWAY as error:
            raise _unavailable() from error

    async def check(self) -> None:
        await self.fetch(Statement("SELECT 1"))

    async def close(self) -> None:
        if self._writer is not None and not self._writer.is_closed():
            await self._writer.close()
        try:
            await asyncio.wait_for(self._pool.close(), CONNECT_SECONDS)
        except TimeoutError:
            self._pool.terminate()


async def _keep(connection: Any) -> None:
    """Nothing to reset between reads: no settings, no cursors, no locks outlive one."""


async def _driven(connection: Any, steps: Steps[T]) -> T:
    try:
        statement = next(steps)
        while True:
            rows = await connection.fetch(statement.sql, *statement.params)
            statement = steps.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _bounded(connection: Any, statement: Statement, max_bytes: int) -> list[Row]:
    taken: list[Row] = []
    total = 0
    async with connection.transaction(readonly=True):
        async for row in connection.cursor(statement.sql, *statement.params, prefetch=128):
            taken.append(row)
            total += len(row[-1])
            if total >= max_bytes:
                break
    return taken


def _unavailable() -> Unavailable:
    return Unavailable("the database is away or busy", retry_after_seconds=1.0)
