"""A client job that leaves nothing behind: runs that end, and watches that are opened and left."""

from __future__ import annotations

import asyncio
from typing import Any

from onbelay.v1.watch_request_pb2 import WatchRunResponse
from onbelay_server.bench.frames import BadDelivery
from onbelay_server.bench.target import Place, Target
from onbelay_server.bench.waiting import park

AT_ONCE = 32


async def churn(place: Place, *, runs: int, watches: int) -> dict[str, Any]:
    """Start `runs` runs and watch each to its end; open `watches` watches of a run that waits and
    cancel each after its first reply. Raises BadDelivery when a run did not end well."""
    parked: list[str] = (await park(place, runs=1))["run_ids"]
    target = Target(place)

    async def ends(left: list[int]) -> None:
        while left:
            left.pop()
            run_id = await target.start("bench-prompt", {})
            last = WatchRunResponse()
            async for data in target.watch(run_id):
                last = WatchRunResponse.FromString(data)
            if not last.HasField("end"):
                raise BadDelivery("the stream of a run ended before the run")

    async def leaves(left: list[int]) -> None:
        while left:
            stream = target.watch(parked[0], left.pop())
            if not isinstance(await stream.read(), bytes):
                raise BadDelivery("the stream of a waiting run ended")
            stream.cancel()

    for job, count in ((ends, runs), (leaves, watches)):
        left = list(range(count))
        await asyncio.gather(*(job(left) for _ in range(AT_ONCE)))
    await target.close()
    return {"runs": runs, "watches": watches}
