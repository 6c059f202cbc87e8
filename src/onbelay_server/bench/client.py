"""The client process: takes one job as JSON on stdin, answers in JSON lines on stdout."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from onbelay_server.bench import calling, churning, streaming, waiting
from onbelay_server.bench.frames import BadDelivery
from onbelay_server.bench.loops import run
from onbelay_server.bench.target import Place

Job = Callable[..., Awaitable[dict[str, Any]]]

JOBS: dict[str, Job] = {
    "deliver": streaming.deliver,
    "replay": streaming.replay,
    "call": calling.call,
    "first_event": calling.first_event,
    "steps": waiting.take_steps,
    "park": waiting.park,
    "hold": waiting.hold,
    "churn": churning.churn,
}


async def work() -> None:
    """Do the job. What a server delivered wrongly is an answer too; anything else is raised."""
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    job = JOBS[order.pop("job")]
    place = Place(order.pop("address"), order.pop("tokens"))
    # A collection in the middle of a measurement would be counted as the server's.
    gc.disable()
    try:
        answer = await job(place, **order)
    except BadDelivery as problem:
        answer = {"bad_delivery": str(problem)}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    run(work())
