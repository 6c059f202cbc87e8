"""What a process left behind is taken up by the next one, while that serves."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from onbelay.v1 import run_filter_pb2, run_pb2
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import SqlStore
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.lifecycle import claimed, launched
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from tests.checker import Final, judge
from tests.server import serving

ORPHANS = 1_000
UNFINISHED = [run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_RUNNING]


async def orphaned(state_dir: Path, model: str) -> None:
    """A thousand runs like this one, left RUNNING by a process that is gone."""
    store = await SqlStore.open(
        f"sqlite:///{state_dir / 'onbelay.db'}", codec=ProtoEventCodec(), clock=SystemClock()
    )
    try:
        pattern = await store.run(model)
        assert pattern is not None
        await asyncio.gather(*(_leave(store, pattern, number) for number in range(ORPHANS)))
    finally:
        await store.close()


async def _leave(store: SqlStore, pattern: Run, number: int) -> None:
    now_us = SystemClock().now_us()
    run_id = make_id("run", now_us, number.to_bytes(10, "big"))
    queued = replace(
        pattern,
        id=run_id,
        root_id=run_id,
        state=RunState.QUEUED,
        epoch=0,
        attempt=0,
        last_sequence=0,
        ready_us=0,
        finish_us=None,
        output_json=None,
        code_python="",
        code_fingerprint="",
        active_us=0,
    )
    running, event = claimed(queued, "worker_dead", now_us + 600_000_000, now_us)
    await store.write(
        Reads(runs=[run_id]),
        lambda rows, at: Change(result=None, put=[queued], events=[launched(queued, "")]),
    )
    await store.write(
        Reads(runs=[run_id]),
        lambda rows, at: Change(
            result=None, put=[replace(running, last_sequence=1)], events=[event]
        ),
    )


@pytest.mark.timeout(120)
async def test_a_thousand_orphans_are_recovered_while_others_are_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        model = await server.client.start("counter", {"steps": 1})
        await server.client.finished(model)
    await orphaned(tmp_path, model)
    begun = time.monotonic()
    async with serving(tmp_path) as server:
        ready_after = time.monotonic() - begun
        slowest = 0.0
        most_at_once = 0
        page = runs_pb.ListRunsRequest(
            page_size=1_000, filter=run_filter_pb2.RunFilter(agents=["counter"], states=UNFINISHED)
        )
        while True:
            asked = time.monotonic()
            # Somebody else's run is served meanwhile.
            run_id = await server.client.start("hello")
            await server.client.get(run_id)
            slowest = max(slowest, time.monotonic() - asked)
            runs = (await server.client.call("ListRuns", page)).runs
            most_at_once = max(
                most_at_once, sum(run.state == run_pb2.RUN_STATE_RUNNING for run in runs)
            )
            if not runs:
                break
            await asyncio.sleep(0.05)
        recording = server.client.recording
        database = server.database
    assert ready_after < 5.0, "it serves before it has recovered them"
    assert slowest < 5.0
    store = await SqlStore.open(database, codec=ProtoEventCodec(), clock=SystemClock())
    try:
        final = await Final.of(store)
    finally:
        await store.close()
    assert judge(recording, final) == []
    recovered = [run for run in final.runs.values() if run.agent_name == "counter"]
    assert len(recovered) == ORPHANS + 1
    assert {run.state for run in recovered} == {RunState.SUCCEEDED}
    # One new epoch each: none was claimed twice.
    assert sorted({run.epoch for run in recovered}) == [1, 2]
