"""A PostgreSQL database that lives as long as one server of the bench."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from onbelay_server.bench.failure import BenchFailed

# Drivers are imported in the store alone, so a process of its own talks to the database.
_PROGRAM = """
import asyncio, sys, asyncpg

async def main(url, command):
    connection = await asyncpg.connect(url)
    await connection.execute(command)
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """Make a database beside the one at `url`; its address. Dropped when the block ends. Raises
    BenchFailed when the server is away or does not allow it."""
    name = f"onbelay_bench_{secrets.token_hex(6)}"
    _run(url, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        _run(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _run(url: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, url, command], capture_output=True, text=True
    )
    if done.returncode:
        # The last line names the error; the rest is a traceback, and could show the address.
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise BenchFailed(f"PostgreSQL: {lines[-1]}")
