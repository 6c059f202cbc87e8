"""Fixtures that every tier of tests shares."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests import hostile_wakeup
from tests.postgres import PostgresCluster, find_postgres, start_postgres
from tests.requirement import require

# Before any test imports the server.
hostile_wakeup.everywhere()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL server of this session's own; skips where its programs are absent."""
    programs = find_postgres()
    require("PostgreSQL (initdb, pg_ctl)", programs)
    assert programs is not None
    cluster = start_postgres(programs)
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres_cluster: PostgresCluster) -> str:
    """Address of the session's PostgreSQL server, `postgresql://…/postgres`."""
    return postgres_cluster.url()


@pytest.fixture
def postgres_database(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """Address of an empty database that lives for one test."""
    name = f"test_{uuid4().hex}"
    postgres_cluster.run(f"CREATE DATABASE {name}")
    try:
        yield postgres_cluster.url(name)
    finally:
        postgres_cluster.run(f"DROP DATABASE {name} WITH (FORCE)")
