"""The real services on a store in memory, with runs of two tenants that nothing executes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from onbelay.v1 import agent_service_pb2, broker_service_pb2, run_service_pb2
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay_server.adapters.blobs import MemoryBlobs
from onbelay_server.adapters.catalog import CodeCatalog
from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.memory import MemoryStore
from onbelay_server.adapters.tools import RegisteredTools
from onbelay_server.adapters.wakeup import LocalWakeup
from onbelay_server.app.agents import Agents
from onbelay_server.app.approvals import Approvals
from onbelay_server.app.artifacts import Artifacts
from onbelay_server.app.blueprints import Blueprints
from onbelay_server.app.callers import CallerLimits, Callers
from onbelay_server.app.engine.sweeper import Retention, Sweeper
from onbelay_server.app.registration import Registration
from onbelay_server.app.runs import Runs
from onbelay_server.app.starts import Starts
from onbelay_server.app.stops import Stops
from onbelay_server.app.uploads import Uploads
from onbelay_server.app.watching.announcer import Announcer
from onbelay_server.app.watching.lists import ListWatches
from onbelay_server.app.watching.tail import Tails
from onbelay_server.app.watching.watches import Watches
from onbelay_server.domain.agent import HarnessKind
from onbelay_server.ports.catalog import RegisteredCode
from onbelay_server.transport.grpc.access_calls import ACCESS_SERVICE, AccessCalls
from onbelay_server.transport.grpc.agent_calls import AgentCalls
from onbelay_server.transport.grpc.approval_calls import ApprovalCalls
from onbelay_server.transport.grpc.artifact_calls import ArtifactCalls
from onbelay_server.transport.grpc.methods import Service
from onbelay_server.transport.grpc.page_token import PageTokens
from onbelay_server.transport.grpc.run_calls import RunCalls
from onbelay_server.transport.grpc.server import GrpcServer
from onbelay_server.transport.grpc.watch_calls import WatchCalls
from tests.grpc.edge_server import RUN, Keys, bearer

HELLO = RegisteredCode(
    name="hello",
    target="hello:hello",
    harness=HarnessKind.PYTHON,
    input_schema_json='{"type":"object","properties":{"n":{"type":"integer"}}}',
    fingerprint="f1",
)


@dataclass
class Seeds:
    """What is there before the calls: made by `ada` unless said otherwise."""

    channel: Any
    run: str = ""
    rivals_run: str = ""
    page_token: str = ""

    async def send(self, path: str, data: bytes, metadata: Any, timeout: float = 10) -> bytes:
        """The first reply of a call of either kind. Raises AioRpcError."""
        call = self.channel.unary_stream(path)(data, metadata=metadata, timeout=timeout)
        try:
            reply = await call.read()
            return b"" if reply is grpc.aio.EOF else reply
        finally:
            call.cancel()


@asynccontextmanager
async def hostile_server() -> AsyncIterator[Seeds]:
    """A server with two started runs and a list of two pages."""
    clock, wakeup, blobs, codec = SystemClock(), LocalWakeup(), MemoryBlobs(), ProtoEventCodec()
    store = MemoryStore(codec=codec, clock=clock)
    catalog, tools, tokens = CodeCatalog([HELLO]), RegisteredTools(), PageTokens(b"k" * 32)
    agents = Agents(store, catalog, tools, Registration(store, catalog, clock), clock)
    runs = Runs(store, Sweeper(store, blobs, clock, Retention()))
    watches = Watches(store, Tails(store, codec), clock, codec)
    approvals = Approvals(store, clock)
    artifacts = Artifacts(store, blobs, Uploads(blobs, clock), clock)
    lists = ListWatches(store, Announcer(codec, wakeup), approvals, clock)
    services = [
        Service(
            run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
            [
                RunCalls(
                    Starts(store, agents, catalog, tools, clock, lambda: None),
                    runs,
                    Stops(store),
                    watches,
                    tokens,
                    clock,
                ),
                WatchCalls(watches, lists, runs, clock),
                ApprovalCalls(approvals, tokens),
                ArtifactCalls(artifacts, tokens),
            ],
        ),
        Service(
            agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
            [AgentCalls(agents, Blueprints(catalog, agents), catalog, tokens)],
        ),
        Service(broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"]),
    ]
    limits = CallerLimits(
        max_request_bytes=1, max_input_bytes=1, max_artifact_bytes=1, max_streams=1
    )
    callers = Callers(clock=clock, server_version="0", limits=limits)
    services.append(Service(ACCESS_SERVICE, [AccessCalls(callers, services)]))
    server = GrpcServer(
        services,
        credentials=Keys(),
        clock=clock,
        draining=asyncio.Event(),
        listen="127.0.0.1:0",
    )
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield await _seeded(Seeds(channel))
    finally:
        await server.drain(0)


async def _seeded(seeds: Seeds) -> Seeds:
    async def start(request_id: str, token: str) -> str:
        request = runs_pb.StartRunRequest(request_id=request_id, agent="hello", input_json="{}")
        path, data = RUN + "StartRun", request.SerializeToString()
        reply = await seeds.send(path, data, bearer(token))
        return runs_pb.StartRunResponse.FromString(reply).run.id

    seeds.run = await start("first", "ada")
    await start("second", "ada")
    seeds.rivals_run = await start("first", "other")
    request = runs_pb.ListRunsRequest(page_size=1)
    page = await seeds.send(RUN + "ListRuns", request.SerializeToString(), bearer("ada"))
    seeds.page_token = runs_pb.ListRunsResponse.FromString(page).next_page_token
    return seeds
