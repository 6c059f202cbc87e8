"""The reference servers: ready-made bytes, an echo, and the event path with a list for a store.

This code is frozen and shares nothing with the service, so that no improvement of the service
moves what it is measured against. Run as a process; prints its port.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from onbelay_server.bench import loops
from onbelay_server.bench.frames import (
    MAX_FRAME_BYTES,
    MAX_FRAME_EVENTS,
    encoded,
    frame,
    ready_made,
    stamped,
)

SERVICE = "onbelay.bench.Reference"
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class ListedRun:
    """A run whose log is a list."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.log: list[bytes] = []
        self.is_over = False
        self._changed: asyncio.Future[None] | None = None

    def append(self, bodies: list[bytes]) -> None:
        now_ns = time.time_ns()
        first = len(self.log) + 1
        self.log.extend(stamped(body, first + at, now_ns) for at, body in enumerate(bodies))
        self.wake()

    def wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    async def changed(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)


class Emitters:
    """Runs what emits on a loop in a thread of its own; events cross in lists, one wake a list."""

    def __init__(self) -> None:
        self._home = asyncio.get_running_loop()
        self._away = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._handed: list[tuple[ListedRun, list[bytes] | None]] = []
        threading.Thread(target=self._away.run_forever, daemon=True).start()

    def start(self, run: ListedRun) -> None:
        asyncio.run_coroutine_threadsafe(self._emit(run), self._away)

    async def _emit(self, run: ListedRun) -> None:
        order = run.order
        events, burst = order["events"], order["burst"]
        due = start = order["start"]
        await asyncio.sleep(start - time.monotonic())
        for first in range(0, events, burst):
            numbers = range(first, min(first + burst, events))
            self._hand(run, [encoded(number, time.monotonic_ns()) for number in numbers])
            due += order["interval"]
            await asyncio.sleep(due - time.monotonic() if order["interval"] else 0)
        self._hand(run, None)

    def _hand(self, run: ListedRun, bodies: list[bytes] | None) -> None:
        with self._lock:
            self._handed.append((run, bodies))
            is_first = len(self._handed) == 1
        if is_first:
            self._home.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        with self._lock:
            handed, self._handed = self._handed, []
        for run, bodies in handed:
            if bodies is None:
                run.is_over = True
                run.wake()
            else:
                run.append(bodies)


class Reference:
    """Answers Echo, Prepare, Raw, Start and Watch."""

    def __init__(self) -> None:
        self._emitters = Emitters()
        self._runs: dict[str, ListedRun] = {}
        self._ids = itertools.count(1)
        self._ready: dict[tuple[int, int], list[bytes]] = {}

    async def echo(self, request: bytes, _context: Context) -> bytes:
        return request

    async def prepare(self, request: bytes, _context: Context) -> bytes:
        """Make the frames of a later Raw."""
        order = json.loads(request)
        key = (order["events"], order["per_frame"])
        if key not in self._ready:
            self._ready[key] = ready_made(*key)
        return b""

    async def raw(self, request: bytes, _context: Context) -> AsyncIterator[bytes]:
        order = json.loads(request)
        frames = self._ready[(order["events"], order["per_frame"])]
        await asyncio.sleep(order["start"] - time.monotonic())
        for one in frames:
            yield one

    async def start(self, request: bytes, _context: Context) -> bytes:
        run_id = f"run_{next(self._ids)}"
        self._runs[run_id] = listed = ListedRun(json.loads(request))
        self._emitters.start(listed)
        return run_id.encode()

    async def watch(self, request: bytes, _context: Context) -> AsyncIterator[bytes]:
        listed = self._runs[request.decode()]
        position = 0
        while True:
            page = listed.log[position : position + MAX_FRAME_EVENTS]
            if page:
                while len(page) > 1 and sum(map(len, page)) > MAX_FRAME_BYTES:
                    page = page[: len(page) // 2]
                position += len(page)
                yield frame(page, position)
            elif listed.is_over:
                return
            else:
                await listed.changed()


async def serve() -> None:
    """Serve on a free port of loopback until the process is ended."""
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 2048)])
    reference = Reference()
    unary: dict[str, Callable[..., Any]] = {
        "Echo": reference.echo,
        "Prepare": reference.prepare,
        "Start": reference.start,
    }
    streams: dict[str, Callable[..., Any]] = {"Raw": reference.raw, "Watch": reference.watch}
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(method) for name, method in unary.items()
    }
    for name, method in streams.items():
        handlers[name] = grpc.unary_stream_rpc_method_handler(method)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"serves on 127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    loops.run(serve())
