"""Few places for child processes: runs take turns, and none waits for what waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from onbelay.v1 import run_pb2
from tests.patience import until
from tests.server import serving


async def test_parents_and_children_share_a_single_place(tmp_path: Path) -> None:
    async with serving(tmp_path, agents=["lodger"], max_children=1) as server:
        ids = [await server.client.start("lodger", {"guests": guests}) for guests in (2, 0)]
        ended = await asyncio.gather(*map(server.client.finished, ids))
    assert [run.output_json for run in ended] == ["3", "1"]


async def test_a_run_without_a_place_stops_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, agents=["brood"], max_children=1) as server:
        ledgers = [tmp_path / "first", tmp_path / "second"]
        first = await server.client.start("brood", {"ledger": str(ledgers[0])})
        await until(ledgers[0].exists)
        second = await server.client.start("brood", {"ledger": str(ledgers[1])})
        await server.client.stop(second)
        async with asyncio.timeout(2):  # far below the agent's grace
            run = await server.client.finished(second)
        assert run.state == run_pb2.RUN_STATE_STOPPED
        assert not ledgers[1].exists()
        await server.client.stop(first)
