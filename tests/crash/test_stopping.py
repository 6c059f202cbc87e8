"""A stopped run has stopped, all of it, whatever its agent does."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore
from tests.agents.unruly import LIMITS
from tests.checker import Final, judge
from tests.server import Server, serving

_HERE = Path(__file__).resolve().parents[1]
BOUND_SECONDS = LIMITS.grace_seconds + LIMITS.kill_seconds + 1.5
"""From StopRun to STOPPED: the agent's own deadlines, and room for a busy machine."""
EFFECT_SECONDS = 2.0

AGENTS = (
    "long_await",
    "catcher",
    "computing_child",
    "sleeping_child",
    "blocking_thread",
    "blocking_loop",
    "dynasty",
)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server whose every run is judged when the test is over."""
    target = _HERE / "agents" / "unruly.py"
    async with serving(
        tmp_path, agents=("hello",), extra=[f"{target}:{name}" for name in AGENTS]
    ) as here:
        yield here
    store = await SqlStore.open(here.database, codec=ProtoEventCodec(), clock=SystemClock())
    try:
        assert judge(here.client.recording, await Final.of(store)) == []
    finally:
        await store.close()


class Ledger:
    """What an agent did outside, line by line with its time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[tuple[float, str]]:
        if not self.path.exists():
            return []
        pairs = (line.split(" ", 1) for line in self.path.read_text().splitlines())
        return [(float(at), text) for at, text in pairs]

    async def has(self, text: str) -> None:
        """Return once such a line is there."""
        async with asyncio.timeout(15.0):
            while text not in [line for _, line in self.lines()]:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


async def stopped(server: Server, run_id: str) -> Any:
    """Stop the run; its last row. It ends STOPPED within its bound."""
    begun = time.monotonic()
    await server.client.stop(run_id)
    run = await server.client.finished(run_id)
    assert run.state == run_pb2.RUN_STATE_STOPPED
    assert time.monotonic() - begun < BOUND_SECONDS
    return run


def children() -> list[int]:
    """Processes of agents that this process started and that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat[1]) == os.getpid() and stat[0] not in "ZX" and b"onbelay_agent" in command:
            found.append(int(entry.name))
    return found


def tasks_of(run_id: str) -> list[str]:
    """Tasks of the service's loop that belong to runs."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if run_id in name or name.startswith(("tool ", "child "))]


async def nothing_left(run_id: str) -> None:
    """No process and no task of the run is left."""
    async with asyncio.timeout(2.0):
        while children() or tasks_of(run_id):  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("agent", ["long-await", "catcher", "computing-child", "sleeping-child"])
async def test_an_agent_that_does_not_end_is_ended(
    server: Server, ledger: Ledger, agent: str
) -> None:
    run_id = await server.client.start(agent, {"ledger": str(ledger.path)})
    await ledger.has("effect" if agent == "catcher" else "begun")
    assert len(children()) == (1 if "child" in agent else 0)
    run = await stopped(server, run_id)
    await nothing_left(run_id)
    late = run.stop.request_time.ToMicroseconds() / 1e6 + EFFECT_SECONDS
    assert [line for at, line in ledger.lines() if at > late] == []
    assert "after" not in [line for _, line in ledger.lines()]


@pytest.mark.parametrize("agent", ["blocking-thread", "blocking-loop"])
async def test_a_thread_that_cannot_be_stopped_is_named_and_does_nothing_more(
    server: Server, ledger: Ledger, tmp_path: Path, agent: str
) -> None:
    gate = tmp_path / "gate"
    run_id = await server.client.start(agent, {"ledger": str(ledger.path), "gate": str(gate)})
    await ledger.has("begun")
    await stopped(server, run_id)
    [finished] = [e for e in await server.client.events(run_id) if e.HasField("run_finished")]
    named = list(finished.run_finished.not_stopped)
    assert len(named) == 1
    # Another run is not held up by it.
    other = await server.client.start("long-await", {"ledger": str(tmp_path / "other")})
    await Ledger(tmp_path / "other").has("begun")
    await server.client.stop(other)
    # What was blocked comes back, and finds that its run is over.
    gate.touch()
    await ledger.has("unblocked")
    before = len(await server.client.events(run_id))
    await server.client.finished(other)
    assert "after" not in [line for _, line in ledger.lines()]
    assert len(await server.client.events(run_id)) == before


async def test_three_levels_of_children_stop_with_their_root(
    server: Server, ledger: Ledger
) -> None:
    root = await server.client.start("dynasty", {"ledger": str(ledger.path)})
    async with asyncio.timeout(20.0):
        while [line for _, line in ledger.lines()].count("begun") < 4:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
    request = runs_pb.ListRunsRequest(page_size=100)
    assert len((await server.client.call("ListRuns", request)).runs) == 11
    await stopped(server, root)
    begun = time.monotonic()
    while True:
        tree = (await server.client.call("ListRuns", request)).runs
        if all(run.state == run_pb2.RUN_STATE_STOPPED for run in tree):
            break
        assert time.monotonic() - begun < BOUND_SECONDS, [run.state for run in tree]
        await asyncio.sleep(0.02)
    for run in tree:
        await nothing_left(run.id)
    assert "after" not in [line for _, line in ledger.lines()]


async def test_a_stop_that_races_completion_leaves_one_end(server: Server, ledger: Ledger) -> None:
    ids = [await server.client.start("hello") for _ in range(20)]
    await asyncio.gather(*(server.client.stop(run_id) for run_id in ids))
    for run_id in ids:
        run = await server.client.finished(run_id)
        assert run.state in (run_pb2.RUN_STATE_STOPPED, run_pb2.RUN_STATE_SUCCEEDED)
        ends = [e for e in await server.client.events(run_id) if e.HasField("run_finished")]
        assert len(ends) == 1
