"""Client jobs that read streams: live delivery and replay."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

from onbelay_server.bench.frames import BadDelivery, Delivered, check
from onbelay_server.bench.target import Place, Stream, Target

STARTS_AT_ONCE = 32


async def deliver(
    place: Place,
    *,
    events: int,
    runs: int = 1,
    watchers: int = 1,
    burst: int = 1,
    interval: float = 0.0,
    per_frame: int = 0,
    lead_seconds: float = 2.0,
) -> dict[str, Any]:
    """Have `runs` runs emit `events` each from one moment on, to `watchers` of each, and read all.

    Runs that emit at intervals do so evenly shifted against each other.
    With `per_frame` the streams are ready-made bytes instead. Everything is open before that
    moment; the time counted is from it to the last event. Raises BadDelivery."""
    streams = runs * watchers
    target = Target(place, streams)
    if per_frame:
        await target.call("Prepare", _json(events=events, per_frame=per_frame))
    start = time.monotonic() + lead_seconds
    if per_frame:
        request = _json(events=events, per_frame=per_frame, start=start)
        calls = [target.stream("Raw", request, number) for number in range(streams)]
    else:
        order = {"events": events, "burst": burst, "start": start, "interval": interval}
        run_ids = await _started(target, runs, order)
        calls = [
            target.watch(run_id, number * watchers + watcher)
            for number, run_id in enumerate(run_ids)
            for watcher in range(watchers)
        ]
    reading = [asyncio.create_task(_read(stream)) for stream in calls]
    if target.is_service:
        # Its first reply comes at once; the others have nothing to say before the start.
        await asyncio.gather(*(stream.initial_metadata() for stream in calls))
        late_seconds = time.monotonic() - start
        if late_seconds > 0:
            raise BadDelivery(f"streams were open {late_seconds:.1f} s too late to be measured")
    pages = await asyncio.gather(*reading)
    found = [check(frames, received, events) for frames, received in pages]
    await target.close()
    return _summary(found, start)


def _summary(found: list[Delivered], start: float) -> dict[str, Any]:
    events = sum(one.events for one in found)
    seconds = max(one.last_ns for one in found) / 1e9 - start
    latencies = sorted(one for delivered in found for one in delivered.latencies_us)
    answer = {
        "events": events,
        "seconds": seconds,
        "rate": events / seconds,
        "events_per_frame": events / sum(one.frames for one in found),
        "event_bytes": sum(one.event_bytes for one in found) / events,
    }
    if latencies:
        answer["p50_us"] = latencies[len(latencies) // 2]
        answer["p99_us"] = latencies[len(latencies) * 99 // 100]
    return answer


async def replay(
    place: Place, *, events: int, times: int, run_id: str = "", per_frame: int = 0
) -> dict[str, Any]:
    """Read a finished run (or ready-made bytes) of `events` events from its start, `times` times;
    the median. An empty `run_id` makes such a run first and answers its id. Raises BadDelivery."""
    target = Target(place)
    if per_frame:
        await target.call("Prepare", _json(events=events, per_frame=per_frame))
    elif not run_id:
        order = {"events": events, "burst": 16, "start": 0.0, "interval": 0.0}
        (run_id,) = await _started(target, 1, order)
        check(*await _read(target.watch(run_id)), events)
    rates = []
    for _ in range(times):
        began = time.monotonic()
        if per_frame:
            request = _json(events=events, per_frame=per_frame, start=0.0)
            stream = target.stream("Raw", request)
        else:
            stream = target.watch(run_id)
        frames, received = await _read(stream)
        seconds = time.monotonic() - began
        delivered = check(frames, received, events)
        rates.append(delivered.events / seconds)
    await target.close()
    return {"rate": statistics.median(rates), "run_id": run_id, "events": events}


async def _started(target: Target, runs: int, order: dict[str, Any]) -> list[str]:
    gate = asyncio.Semaphore(STARTS_AT_ONCE)

    async def one(number: int) -> str:
        shifted = order | {"start": order["start"] + order["interval"] * number / runs}
        async with gate:
            return await target.start("bench-emitter", shifted)

    return await asyncio.gather(*(one(number) for number in range(runs)))


async def _read(stream: Stream) -> tuple[list[bytes], list[int]]:
    """All replies of a stream, unread, and when each came."""
    frames: list[bytes] = []
    received: list[int] = []
    clock = time.monotonic_ns
    async for data in stream:
        received.append(clock())
        frames.append(data)
    return frames, received


def _json(**order: Any) -> bytes:
    return json.dumps(order).encode()
