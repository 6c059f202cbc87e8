from __future__ import annotations

import pytest

from tests.postgres import PostgresCluster, PostgresError

pytestmark = pytest.mark.postgres


def test_the_server_that_answers_is_the_one_started(postgres_cluster: PostgresCluster) -> None:
    assert postgres_cluster.run("SHOW data_directory") == str(postgres_cluster.data)
    assert postgres_cluster.run("SELECT 1") == "1"


def test_each_test_gets_an_empty_database(
    postgres_cluster: PostgresCluster, postgres_database: str
) -> None:
    name = postgres_database.rpartition("/")[2]
    listed = postgres_cluster.run("SELECT datname FROM pg_database").split("\n")
    assert name in listed


def test_a_refused_statement_raises(postgres_cluster: PostgresCluster) -> None:
    with pytest.raises(PostgresError, match="syntax error"):
        postgres_cluster.run("SELEKT")
