"""A server that is killed takes the processes of its runs with it, whatever they are busy with."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.server import child_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux ends them")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Path]:
    """Where a child writes its process ids; none of them outlives the test."""
    place = tmp_path / "ledger"
    yield place
    if place.exists():
        for pid in map(int, place.read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def processes(ledger: Path) -> list[int]:
    """What the child wrote, once it has."""
    until = time.monotonic() + 20
    while not (ledger.exists() and ledger.read_text().endswith("\n")):
        assert time.monotonic() < until, "the child never began"
        time.sleep(0.02)
    return [int(pid) for pid in ledger.read_text().split()]


async def test_what_sees_nothing_of_its_servers_death_dies_with_it(
    tmp_path: Path, ledger: Path
) -> None:
    async with child_server(tmp_path, agents=["brood"]) as server:
        await server.client.start("brood", {"ledger": str(ledger)})
        found = await asyncio.to_thread(processes, ledger)
        assert [is_alive(pid) for pid in found] == [True, True]
        await server.kill()
        async with asyncio.timeout(5):
            while any(map(is_alive, found)):  # noqa: ASYNC110 - processes
                await asyncio.sleep(0.02)
