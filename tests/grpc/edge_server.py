"""A real server with a few handlers that misbehave on demand, and a real channel to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from onbelay.v1 import (
    access_service_pb2,
    agent_service_pb2,
    broker_service_pb2,
    run_request_pb2,
    run_service_pb2,
    watch_request_pb2,
)
from onbelay_server.app.callers import CallerLimits, Callers
from onbelay_server.app.credentials import ALL_BUT_CODE, ROLES
from onbelay_server.domain.error import NotFound
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.credentials import Credential, CredentialKind
from onbelay_server.transport.grpc.access_calls import ACCESS_SERVICE, AccessCalls
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.edge import EdgeLimits
from onbelay_server.transport.grpc.methods import Service
from onbelay_server.transport.grpc.server import GrpcServer
from tests.manual_clock import ManualClock

RUN = "/onbelay.v1.RunService/"
AGENT = "/onbelay.v1.AgentService/"
ACCESS = "/onbelay.v1.AccessService/"
BROKER = "/onbelay.v1.BrokerService/"
SECRET = "postgresql://user:c4nary@db"


class Keys:
    """Credentials in a dict: token → credential."""

    def __init__(self) -> None:
        self.valid = {
            "ada": _credential("default", "ada", roles=("admin",)),
            "viewer": _credential("default", "vic", roles=("viewer",)),
            "other": _credential("rival", "rob", roles=("admin",)),
        }

    def find(self, token: str) -> Credential | None:
        return self.valid.get(token)

    def tenants(self) -> set[str]:
        return {found.principal.tenant for found in self.valid.values()}


def _credential(tenant: str, user: str, *, roles: tuple[str, ...]) -> Credential:
    scopes = ALL_BUT_CODE if "admin" in roles else ROLES[roles[0]]
    principal = Principal(tenant=tenant, id=f"user:{user}", is_person=True, scopes=scopes)
    return Credential(principal=principal, kind=CredentialKind.TOKEN, roles=roles)


@dataclass
class FakeRuns:
    """Answers GetRun by the run_id it is asked for; WatchRun streams until it is told to stop."""

    calls: list[Call] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    problem: BaseException | None = None
    before_replying: Callable[[], None] = lambda: None

    async def get_run(
        self, request: run_request_pb2.GetRunRequest, call: Call
    ) -> run_request_pb2.GetRunResponse:
        self.calls.append(call)
        if request.run_id == "raise" and self.problem is not None:
            raise self.problem
        if request.run_id == "wait":
            self.started.set()
            try:
                await self.gate.wait()
            finally:
                self.closed.set()
        if request.run_id == "huge":
            reply = run_request_pb2.GetRunResponse()
            reply.run.input_json = "x" * 5_000_000
            return reply
        if request.run_id == "unknown":
            raise NotFound("no such run", metadata={"resource": "run"})
        return run_request_pb2.GetRunResponse()

    async def start_run(
        self, request: run_request_pb2.StartRunRequest, call: Call
    ) -> run_request_pb2.StartRunResponse:
        self.calls.append(call)
        return run_request_pb2.StartRunResponse()

    async def watch_run(
        self, request: watch_request_pb2.WatchRunRequest, call: Call
    ) -> AsyncIterator[watch_request_pb2.WatchRunResponse | bytes]:
        self.calls.append(call)
        try:
            if request.run_id == "raise" and self.problem is not None:
                raise self.problem
            self.before_replying()
            yield watch_request_pb2.WatchRunResponse(complete_through=1)
            yield watch_request_pb2.WatchRunResponse(complete_through=2).SerializeToString()
            if request.run_id == "flood":
                while True:
                    yield b"\x12\x00" * 50_000
            if request.run_id != "end":
                self.started.set()
                await self.gate.wait()
        finally:
            self.closed.set()


@dataclass
class Edged:
    """A running server, its parts, and a channel to it."""

    server: GrpcServer
    channel: Any
    runs: FakeRuns
    keys: Keys
    clock: ManualClock
    draining: asyncio.Event
    port: int

    async def call(
        self, path: str, request: Any = b"", *, token: str | None = "ada", **more: Any
    ) -> bytes:
        """The raw reply of a unary call; raises AioRpcError."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        more.setdefault("metadata", bearer(token))
        more.setdefault("timeout", 10)
        reply: bytes = await self.channel.unary_unary(path)(data, **more)
        return reply

    def stream(
        self, path: str, request: Any = b"", *, token: str | None = "ada", **more: Any
    ) -> Any:
        """A raw server stream."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        more.setdefault("metadata", bearer(token))
        return self.channel.unary_stream(path)(data, **more)

    async def refused(self, path: str, request: Any = b"", **more: Any) -> Refused:
        """How a call was refused; fails the test when it was not."""
        try:
            await self.call(path, request, **more)
        except grpc.aio.AioRpcError as problem:
            return Refused.of(problem)
        raise AssertionError(f"{path} was accepted")


@dataclass
class Refused:
    """A refusal as a client reads it."""

    code: grpc.StatusCode
    text: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    retry_seconds: float | None = None
    infos: int = 0

    @classmethod
    def of(cls, problem: grpc.aio.AioRpcError) -> Refused:
        found = cls(problem.code(), problem.details() or "")
        for key, value in problem.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                found._read(status_pb2.Status.FromString(value))
        return found

    def _read(self, status: Any) -> None:
        assert status.code == self.code.value[0]
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
                assert info.domain == "onbelay.dev"
                self.infos += 1
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
                self.fields = [item.field for item in bad.field_violations]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                self.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a credential."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def edged(limits: EdgeLimits | None = None, **options: Any) -> AsyncIterator[Edged]:
    """A server on a free loopback port; it is drained in the end."""
    runs, keys, clock, draining = FakeRuns(), Keys(), ManualClock(), asyncio.Event()
    services = [
        Service(run_service_pb2.DESCRIPTOR.services_by_name["RunService"], [runs]),
        Service(agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]),
        Service(broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"]),
    ]
    callers = Callers(
        clock=clock,
        server_version="0.1.0",
        limits=CallerLimits(
            max_request_bytes=1, max_input_bytes=2, max_artifact_bytes=3, max_streams=4
        ),
    )
    access = Service(ACCESS_SERVICE, [AccessCalls(callers, services)])
    server = GrpcServer(
        [*services, access],
        credentials=keys,
        clock=clock,
        draining=draining,
        listen="127.0.0.1:0",
        limits=limits,
        **options,
    )
    port = await server.start()
    await server.health.serve()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Edged(server, channel, runs, keys, clock, draining, port)
    finally:
        await server.drain(0)


def caller_of(data: bytes) -> access_service_pb2.GetCallerResponse:
    """The reply of GetCaller."""
    return access_service_pb2.GetCallerResponse.FromString(data)


async def ended(call: Any) -> Refused:
    """Read a stream to its end; how it ended."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as problem:
        return Refused.of(problem)
    return Refused(await call.code(), await call.details())
