"""A client that remembers every request and every reply, for the checker to judge."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from onbelay.v1 import agent_service_pb2_grpc, approval_pb2, run_pb2, run_service_pb2_grpc
from onbelay.v1 import approval_request_pb2 as approvals_pb
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay.v1 import watch_request_pb2 as watch_pb

_CALL_SECONDS = 20.0
_HEARTBEAT = Duration(seconds=2)
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)
_numbers = itertools.count(1)


@dataclass(slots=True)
class Exchange:
    """One call: what was sent, and everything that came back, with monotonic times."""

    method: str
    request: Any
    sent_at: float
    watcher: str = ""
    """Streams of one watcher are segments of what it holds."""
    replies: list[tuple[float, Any]] = field(default_factory=list)
    ended_at: float | None = None
    code: grpc.StatusCode | None = None
    """None: it has not ended, or was cut off by its caller."""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def reply(self) -> Any:
        """The reply of a unary call that succeeded."""
        assert self.code is grpc.StatusCode.OK, f"{self.method}: {self.code} {self.reason}"
        return self.replies[0][1]


@dataclass(slots=True)
class Recording:
    """Everything that was said to servers over one database, in the order it was sent."""

    exchanges: list[Exchange] = field(default_factory=list)
    server_starts_us: list[int] = field(default_factory=list)
    """When each server began to answer."""

    def of(self, method: str) -> list[Exchange]:
        return [one for one in self.exchanges if one.method == method]


class Stream:
    """A stream that is being read and recorded."""

    def __init__(self, call: Any, exchange: Exchange) -> None:
        self._call = call
        self.exchange = exchange

    async def next(self) -> Any:
        """The next reply; None when the stream has ended, however it did."""
        exchange = self.exchange
        try:
            reply = await self._call.read()
        except grpc.aio.AioRpcError as problem:
            _refused(exchange, problem)
            return None
        if reply is grpc.aio.EOF:
            exchange.code, exchange.ended_at = await self._call.code(), time.monotonic()
            return None
        exchange.replies.append((time.monotonic(), reply))
        return reply

    async def rest(self) -> list[Any]:
        """All further replies."""
        replies = []
        while (reply := await self.next()) is not None:
            replies.append(reply)
        return replies

    async def until(self, wanted: Any) -> Any:
        """The first further reply for which `wanted(reply)` holds."""
        while (reply := await self.next()) is not None:
            if wanted(reply):
                return reply
        raise AssertionError("the stream ended without it")


class Recorder:
    """Calls RunService and AgentService with one credential and records it."""

    def __init__(self, channel: grpc.aio.Channel, token: str, recording: Recording) -> None:
        self._stubs = (
            run_service_pb2_grpc.RunServiceStub(channel),
            agent_service_pb2_grpc.AgentServiceStub(channel),
        )
        self._metadata = (("authorization", f"Bearer {token}"),)
        self.recording = recording
        recording.server_starts_us.append(time.time_ns() // 1_000)
        self.patience_seconds = 0.0
        """How long a call that must succeed is repeated while there is no server."""

    def with_recording(self, recording: Recording) -> Recorder:
        """The same caller on the same channel, remembered elsewhere."""
        other = copy.copy(self)
        other.recording = recording
        return other

    async def exchange(self, method: str, request: Message) -> Exchange:
        """A unary call, refused or not."""
        exchange = Exchange(method, _copied(request), time.monotonic())
        self.recording.exchanges.append(exchange)
        call = self._method(method)(request, metadata=self._metadata, timeout=_CALL_SECONDS)
        try:
            reply = await call
        except grpc.aio.AioRpcError as problem:
            _refused(exchange, problem)
        else:
            exchange.ended_at, exchange.code = time.monotonic(), grpc.StatusCode.OK
            exchange.replies.append((exchange.ended_at, reply))
        return exchange

    async def call(self, method: str, request: Message) -> Any:
        """The reply of a unary call that must succeed, asked again while patience lasts."""
        give_up = time.monotonic() + self.patience_seconds
        while True:
            exchange = await self.exchange(method, request)
            if exchange.code not in _AWAY or time.monotonic() >= give_up:
                return exchange.reply
            await asyncio.sleep(0.05)

    async def follow(self, run_id: str, watcher: str) -> None:
        """Watch a run to its end, over as many streams as it takes."""
        position = 0
        while True:
            request = watch_pb.WatchRunRequest(
                run_id=run_id, after_sequence=position, heartbeat_interval=_HEARTBEAT
            )
            async with self.stream("WatchRun", request, watcher) as stream:
                while (reply := await stream.next()) is not None:
                    position = max(position, reply.complete_through)
                    if reply.end.reason == watch_pb.STREAM_END_REASON_FINISHED:
                        return
            if stream.exchange.code not in (*_AWAY, grpc.StatusCode.OK):
                raise AssertionError(f"WatchRun: {stream.exchange.code} {stream.exchange.reason}")
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def stream(
        self, method: str, request: Message, watcher: str = ""
    ) -> AsyncIterator[Stream]:
        """A stream, cut off at the end if it is still open."""
        exchange = Exchange(method, _copied(request), time.monotonic(), watcher)
        self.recording.exchanges.append(exchange)
        call = self._method(method)(request, metadata=self._metadata, timeout=_CALL_SECONDS)
        try:
            yield Stream(call, exchange)
        finally:
            call.cancel()

    def _method(self, name: str) -> Any:
        return next(getattr(stub, name) for stub in self._stubs if hasattr(stub, name))

    # ---- what nearly every test says ------------------------------------------------------------

    async def start(self, agent: str, values: dict[str, Any] | None = None, **more: Any) -> str:
        """The id of a new run."""
        request = runs_pb.StartRunRequest(
            request_id=more.pop("request_id", f"r{next(_numbers)}.{time.time_ns()}"),
            agent=agent,
            input_json=json.dumps(values or {}),
            **more,
        )
        run_id: str = (await self.call("StartRun", request)).run.id
        return run_id

    async def get(self, run_id: str) -> run_pb2.Run:
        reply = await self.call("GetRun", runs_pb.GetRunRequest(run_id=run_id))
        run: run_pb2.Run = reply.run
        return run

    async def finished(self, run_id: str) -> run_pb2.Run:
        """The run once it has ended."""
        reply = await self.call("WaitRun", runs_pb.WaitRunRequest(run_id=run_id))
        assert not reply.timed_out, f"the run is still {run_pb2.RunState.Name(reply.run.state)}"
        run: run_pb2.Run = reply.run
        return run

    async def reached(self, run_id: str, *states: str) -> run_pb2.Run:
        """The run once it is in one of these states, as its watch tells it."""
        wanted = {run_pb2.RunState.Value(f"RUN_STATE_{state}") for state in states}
        request = watch_pb.WatchRunRequest(run_id=run_id)
        async with asyncio.timeout(_CALL_SECONDS), self.stream("WatchRun", request) as stream:
            reply = await stream.until(lambda one: one.HasField("run") and one.run.state in wanted)
        run: run_pb2.Run = reply.run
        return run

    async def stop(self, run_id: str, reason: str = "enough") -> run_pb2.Run:
        request = runs_pb.StopRunRequest(run_id=run_id, reason=reason)
        run: run_pb2.Run = (await self.call("StopRun", request)).run
        return run

    async def events(self, run_id: str, after: int = 0) -> list[Any]:
        """The run's log behind `after`, page by page."""
        events: list[Any] = []
        while True:
            request = watch_pb.ListRunEventsRequest(
                run_id=run_id, after_sequence=after, page_size=1000
            )
            page = await self.call("ListRunEvents", request)
            events += page.events
            if page.complete_through >= page.last_sequence:
                return events
            after = page.complete_through

    async def pending(self, run_id: str) -> Any:
        """The approval the run waits for, once it does."""
        request = runs_pb.WaitRunRequest(run_id=run_id, until=runs_pb.WAIT_UNTIL_ATTENTION)
        run = (await self.call("WaitRun", request)).run
        wait = next(wait for wait in run.waits if wait.approval_id)
        ask = approvals_pb.GetApprovalRequest(approval_id=wait.approval_id)
        return (await self.call("GetApproval", ask)).approval

    async def decide(self, approval: Any, decision: str, **more: Any) -> Any:
        request = approvals_pb.DecideApprovalRequest(
            approval_id=approval.id,
            decision=approval_pb2.ApprovalDecision.Value(f"APPROVAL_DECISION_{decision}"),
            body_sha256=approval.body_sha256,
            **more,
        )
        return (await self.call("DecideApproval", request)).approval


def _copied(request: Message) -> Message:
    """As it was sent, whatever the caller does with it afterwards."""
    sent = type(request)()
    sent.CopyFrom(request)
    return sent


def _refused(exchange: Exchange, problem: grpc.aio.AioRpcError) -> None:
    exchange.code, exchange.ended_at = problem.code(), time.monotonic()
    for key, value in problem.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                exchange.reason, exchange.metadata = info.reason, dict(info.metadata)
