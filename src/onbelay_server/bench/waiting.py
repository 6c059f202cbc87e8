"""Client jobs about runs themselves: steps taken, runs that wait, streams that are idle."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from google.protobuf.duration_pb2 import Duration

from onbelay.v1.run_pb2 import RUN_STATE_WAITING_FOR_INPUT
from onbelay.v1.run_request_pb2 import (
    WAIT_UNTIL_ATTENTION,
    WAIT_UNTIL_FINISHED,
    WaitRunRequest,
    WaitRunResponse,
)
from onbelay.v1.watch_request_pb2 import WatchRunResponse
from onbelay_server.bench.frames import BadDelivery
from onbelay_server.bench.target import Place, Target

AT_ONCE = 32
PARK_SECONDS = 60


async def take_steps(
    place: Place, *, runs: int, steps: int, lead_seconds: float = 2.0
) -> dict[str, Any]:
    """Have `runs` runs take `steps` steps each at once; steps a second by the times in the log.
    Nobody watches meanwhile. Raises BadDelivery when a log lacks an intent or a result."""
    target = Target(place)
    order = {"steps": steps, "start": time.monotonic() + lead_seconds}
    run_ids = await asyncio.gather(*(target.start("bench-stepper", order) for _ in range(runs)))
    for run_id in run_ids:
        await _wait(target, run_id, WAIT_UNTIL_FINISHED)
    spans = [await _span(target, run_id, steps) for run_id in run_ids]
    await target.close()
    seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return {"rate": runs * steps / seconds, "steps": runs * steps, "seconds": seconds}


async def _span(target: Target, run_id: str, steps: int) -> tuple[float, float]:
    """When a run's barrier fell and when its last step was recorded."""
    started, times = 0, []
    async for data in target.watch(run_id):
        for event in WatchRunResponse.FromString(data).events:
            kind = event.WhichOneof("payload")
            started += kind == "step_started"
            if kind == "step_finished":
                times.append(event.time.ToNanoseconds() / 1e9)
    if started != steps + 1 or len(times) != steps + 1:
        raise BadDelivery(f"{steps} steps left {started - 1} intents, {len(times) - 1} results")
    return times[0], times[-1]


async def park(place: Place, *, runs: int) -> dict[str, Any]:
    """Start runs that ask a person, and return once all of them wait. Raises BadDelivery when one
    does not."""
    target = Target(place)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with gate:
            run_id = await target.start("bench-waiter", {})
            deadline = time.monotonic() + PARK_SECONDS
            while True:
                waiting = await _wait(target, run_id, WAIT_UNTIL_ATTENTION)
                if waiting.run.state == RUN_STATE_WAITING_FOR_INPUT:
                    return run_id
                if time.monotonic() > deadline:
                    raise BadDelivery(f"a run is in state {waiting.run.state} and does not wait")
                await asyncio.sleep(0.05)

    run_ids = await asyncio.gather(*(one() for _ in range(runs)))
    await target.close()
    return {"run_ids": run_ids}


async def hold(place: Place, *, run_ids: list[str]) -> dict[str, Any]:
    """Watch each of these runs; says so once all are open, and holds them until a line comes."""
    target = Target(place, len(run_ids))
    calls = [target.watch(run_id, number) for number, run_id in enumerate(run_ids)]
    await asyncio.gather(*(_first_replies(stream) for stream in calls))
    print('{"open": true}', flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for stream in calls:
        stream.cancel()
    await target.close()
    return {"streams": len(calls)}


async def _first_replies(stream: Any) -> None:
    """Read a waiting run's stream up to the event by which it asked."""
    while True:
        data = await stream.read()
        if not isinstance(data, bytes):
            raise BadDelivery("the stream of a waiting run ended")
        events = WatchRunResponse.FromString(data).events
        if any(event.WhichOneof("payload") == "approval_requested" for event in events):
            return


async def _wait(target: Target, run_id: str, until: Any) -> WaitRunResponse:
    request = WaitRunRequest(run_id=run_id, until=until, timeout=Duration(seconds=50))
    while True:
        reply = await target.call("WaitRun", request.SerializeToString())
        response = WaitRunResponse.FromString(reply)
        if not response.timed_out:
            return response
