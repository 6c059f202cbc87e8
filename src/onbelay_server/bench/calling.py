"""Client jobs that call: how many a second, how long each takes, how soon the first event comes."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from onbelay.v1.run_request_pb2 import StartRunResponse
from onbelay.v1.watch_request_pb2 import WatchRunResponse
from onbelay_server.bench.frames import BadDelivery
from onbelay_server.bench.target import Place, Target, start_request


async def call(
    place: Place,
    *,
    calls: int,
    concurrency: int,
    agent: str = "bench-prompt",
    pause_seconds: float = 0.0,
    longest_seconds: float = 60.0,
) -> dict[str, Any]:
    """Make `calls` StartRun calls (or echoes of the same bytes), `concurrency` at a time, after a
    twentieth as many to warm up; fewer when `longest_seconds` are over for both. Each caller waits
    `pause_seconds` between two calls. Raises BadDelivery when they made fewer runs than calls."""
    target = Target(place)
    multi, metadata = target.caller("StartRun" if target.is_service else "Echo")
    warm = [start_request(agent, {}) for _ in range(max(concurrency, calls // 20))]
    requests = [start_request(agent, {}) for _ in range(calls)]
    replies: list[bytes] = []
    took_us: list[float] = []

    async def caller(left: list[bytes], until: float) -> None:
        while left and time.perf_counter() < until:
            request = left.pop()
            began = time.perf_counter()
            reply = await multi(request, metadata=metadata)
            took_us.append((time.perf_counter() - began) * 1e6)
            replies.append(reply)
            if pause_seconds:
                await asyncio.sleep(pause_seconds)

    until = time.perf_counter() + longest_seconds

    async def all_of(left: list[bytes]) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(caller(left, until) for _ in range(concurrency)))
        return time.perf_counter() - began

    await all_of(warm)
    replies.clear()
    took_us.clear()
    seconds = await all_of(requests)
    if not replies:
        raise BadDelivery(f"not one call was answered after {longest_seconds:g} s of warming up")
    if target.is_service:
        made = len({StartRunResponse.FromString(reply).run.id for reply in replies})
        if made != len(replies):
            raise BadDelivery(f"{len(replies)} calls made {made} runs")
    await target.close()
    took_us.sort()
    return {
        "calls": len(replies),
        "rate": len(replies) / seconds,
        "p50_us": took_us[len(took_us) // 2],
        "p99_us": took_us[len(took_us) * 99 // 100],
    }


async def first_event(place: Place, *, count: int) -> dict[str, Any]:
    """Start a run and watch it, one after the other: the time until the run's first event is here,
    and until the first event that its agent emitted is."""
    target = Target(place)
    to_first, to_emitted = [], []
    for number in range(count + count // 10 + 1):
        began = time.perf_counter()
        run_id = await target.start("bench-prompt", {})
        first = emitted = None
        async for data in target.watch(run_id):
            now = time.perf_counter()
            for event in WatchRunResponse.FromString(data).events:
                first = first or now
                if emitted is None and event.WhichOneof("payload") == "text_delta":
                    emitted = now
        if first is None or emitted is None:
            raise BadDelivery("a run ended without its events")
        if number > count // 10:
            to_first.append((first - began) * 1e6)
            to_emitted.append((emitted - began) * 1e6)
    await target.close()
    return {
        "first_p50_us": statistics.median(to_first),
        "emitted_p50_us": statistics.median(to_emitted),
    }
