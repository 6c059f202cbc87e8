"""Puts the house together: which implementation stands behind which port, in plain calls."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from onbelay_server.adapters.blobs import FileBlobs
from onbelay_server.adapters.catalog import load_catalog
from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.credentials.developer_token import (
    developer_credentials,
    load_developer_token,
)
from onbelay_server.adapters.credentials.secret_file import load_signing_key
from onbelay_server.adapters.credentials.tokens_file import TokensFile
from onbelay_server.adapters.harness import ChildHarness, PythonHarness
from onbelay_server.adapters.sql import SqlStore, migrate
from onbelay_server.adapters.tools import RegisteredTools, load_tools
from onbelay_server.adapters.wakeup import LocalWakeup
from onbelay_server.app.agents import Agents
from onbelay_server.app.approvals import Approvals
from onbelay_server.app.artifacts import Artifacts
from onbelay_server.app.blueprints import Blueprints
from onbelay_server.app.callers import CallerLimits, Callers
from onbelay_server.app.engine.alarm import Alarm
from onbelay_server.app.engine.emits import EmitEncoder, unredacted
from onbelay_server.app.engine.engine import Engine
from onbelay_server.app.engine.parts import Pace, Parts
from onbelay_server.app.engine.sweeper import Retention, Sweeper
from onbelay_server.app.governance.broker import Broker
from onbelay_server.app.messages import Messages
from onbelay_server.app.operation_token import OperationCredentials, OperationTokens
from onbelay_server.app.operations import Operations
from onbelay_server.app.pauses import Pauses
from onbelay_server.app.registration import Registration
from onbelay_server.app.runs import Runs
from onbelay_server.app.starts import Starts
from onbelay_server.app.stops import Stops
from onbelay_server.app.uploads import Uploads
from onbelay_server.app.watching.announcer import Announcer
from onbelay_server.app.watching.lists import ListWatches
from onbelay_server.app.watching.tail import Tails
from onbelay_server.app.watching.watches import Watches
from onbelay_server.config import Settings, split_address
from onbelay_server.domain.agent import HarnessKind
from onbelay_server.domain.error import Unavailable
from onbelay_server.ports import failpoints
from onbelay_server.ports.credentials import Credentials
from onbelay_server.ports.store import Store
from onbelay_server.telemetry import configure_logging
from onbelay_server.transport.grpc.agent_calls import AgentCalls
from onbelay_server.transport.grpc.approval_calls import ApprovalCalls
from onbelay_server.transport.grpc.artifact_calls import ArtifactCalls
from onbelay_server.transport.grpc.edge import EdgeLimits
from onbelay_server.transport.grpc.operation_calls import OperationCalls
from onbelay_server.transport.grpc.page_token import PageTokens
from onbelay_server.transport.grpc.run_calls import MAX_INPUT_BYTES, RunCalls
from onbelay_server.transport.grpc.server import GrpcServer, Tls
from onbelay_server.transport.grpc.services import contract_services
from onbelay_server.transport.grpc.steering_calls import SteeringCalls
from onbelay_server.transport.grpc.watch_calls import WatchCalls
from onbelay_server.transport.http.app import http_app
from onbelay_server.transport.http.server import HttpServer

log = logging.getLogger(__name__)

_FAILPOINTS = "ONBELAY_FAILPOINTS"
"""For tests alone, and so no setting: see ports/failpoints.py."""
redact = unredacted
"""What every text passes on its way into a log. There is no redactor yet; this is its place."""

_HTTP_GRACE_SECONDS = 2.0
_SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from another. The writer gives it up at every
statement and would wait the default of 5 ms, several times a transaction, while the serving loop is
busy."""
_STORE_CHECK_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where a server answers."""

    grpc_address: str
    http_address: str | None
    token: str | None = None
    """The developer token; None when a tokens file says who may call."""
    exhausted: asyncio.Event
    """Set when the process should drain and be started anew."""
    left_behind: Callable[[], Sequence[str]]
    """What of the agents' code would not end, by name; complete once the drain is over."""


async def serve(settings: Settings, *, ready: Callable[[Serving], None] | None = None) -> None:
    """Serve until cancelled, then drain. Returns, drained, when too many threads had to be left
    behind: the process should be started anew."""
    configure_logging(settings.log_level, as_json=settings.log_json)
    sys.setswitchinterval(_SWITCH_SECONDS)
    async with running(settings) as serving:
        if ready is not None:
            ready(serving)
        await serving.exhausted.wait()
        log.critical("drains: threads cannot be stopped", extra={"action": "exhausted"})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Serving]:
    """A server from its first answer to the end of its drain."""
    if named := os.environ.get(_FAILPOINTS):
        failpoints.arm(named)
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        house = await _build(settings, stack)
        port = await house.grpc.start()
        host, _ = split_address(settings.listen)
        stack.push_async_callback(house.drain)
        house.engine.start()
        http_address = None
        if settings.http is not None:
            http_host, http_port = split_address(settings.http)
            app = http_app(is_ready=lambda: house.is_ready, hosts=settings.http_hosts)
            http = HttpServer(app, host=http_host, port=http_port)
            http_address = f"{http_host}:{await http.start()}"
            stack.push_async_callback(http.drain, _HTTP_GRACE_SECONDS)
        await house.grpc.health.serve()
        house.is_ready = True
        looking = asyncio.create_task(house.look_after_store(), name="store check")
        stack.callback(looking.cancel)
        log.info("serving", extra={"action": "serving", "port": port})
        yield Serving(
            grpc_address=f"{host}:{port}",
            http_address=http_address,
            token=house.token,
            exhausted=house.exhausted,
            left_behind=lambda: house.python.left_behind,
        )


@dataclass(slots=True, kw_only=True)
class _House:
    """The parts that are started and ended."""

    settings: Settings
    token: str | None
    grpc: GrpcServer
    engine: Engine
    watches: Watches
    lists: ListWatches
    store: Store
    python: PythonHarness
    exhausted: asyncio.Event
    """Set when so many threads were left behind that this process should be replaced."""
    is_ready: bool = False

    async def look_after_store(self) -> None:
        """Health says NOT_SERVING for as long as the database is away."""
        while True:
            await asyncio.sleep(_STORE_CHECK_SECONDS)
            try:
                await self.store.check()
            except Unavailable as away:
                if self.is_ready:
                    log.critical("not serving: %s", away.text, extra={"action": "store_away"})
                    self.is_ready = False
                    await self.grpc.health.pause()
            else:
                if not self.is_ready:
                    log.info("serving again", extra={"action": "store_back"})
                    await self.grpc.health.serve()
                    self.is_ready = True

    async def drain(self) -> None:
        """Health first; streams end with RECONNECT, runs are given back, then everything ends."""
        self.is_ready = False
        await self.grpc.health.close()
        self.watches.drain()
        self.lists.drain()
        grace = self.settings.drain_seconds
        await asyncio.gather(self.engine.drain(), self.grpc.drain(grace))
        await self.engine.close()


async def _build(settings: Settings, stack: AsyncExitStack) -> _House:
    exhausted = asyncio.Event()
    clock, codec, wakeup = SystemClock(), ProtoEventCodec(), LocalWakeup()
    people, token = _credentials(settings, clock)
    operation_tokens = OperationTokens(load_signing_key(settings.operation_key_path))
    credentials = OperationCredentials(people, operation_tokens)
    tls = _tls(settings)
    if settings.sqlite_path is not None:
        settings.sqlite_path.parent.mkdir(parents=True, exist_ok=True)
        await migrate(settings.database)
    store = await SqlStore.open(
        settings.database, codec=codec, clock=clock, synchronous=settings.synchronous
    )
    stack.push_async_callback(store.close)
    blobs = FileBlobs(settings.blobs_dir)
    catalog = load_catalog(settings.agents)
    tools = RegisteredTools([*catalog.tools, *load_tools(settings.tools)])
    stack.push_async_callback(tools.close)

    announcer, tails = Announcer(codec, wakeup), Tails(store, codec)
    sweeper = Sweeper(
        store,
        blobs,
        clock,
        Retention(finished_days=settings.retention_days, requests_days=settings.requests_days),
    )
    python = PythonHarness(catalog, on_exhausted=exhausted.set)
    parts = Parts(
        owner=f"worker_{secrets.token_hex(8)}",
        store=store,
        codec=codec,
        emits=EmitEncoder(codec, redact),
        clock=clock,
        wakeup=wakeup,
        blobs=blobs,
        broker=Broker(tools),
        tokens=operation_tokens,
        harnesses={
            HarnessKind.PYTHON: python,
            HarnessKind.CHILD: ChildHarness(
                catalog,
                max_children=settings.max_children,
                max_blob_bytes=settings.max_artifact_bytes,
            ),
        },
        pace=Pace(
            slots=settings.workers,
            lease_seconds=settings.lease_seconds,
            drain_seconds=settings.drain_seconds,
        ),
        alarm=Alarm(clock),
    )
    engine = Engine(parts, sweeper)
    announcer.on_commit(engine.committed)
    announcer.on_commit(tails.committed)
    store.on_commit(announcer.committed)

    runs, approvals = Runs(store, sweeper), Approvals(store, clock)
    watches = Watches(store, tails, clock, codec)
    lists = ListWatches(store, announcer, approvals, clock)
    registration = Registration(store, catalog, clock)
    await registration.start(credentials.tenants())
    agents = Agents(store, catalog, tools, registration, clock)
    uploads = Uploads(blobs, clock, max_bytes=settings.max_artifact_bytes)
    stack.push_async_callback(uploads.close)
    artifacts = Artifacts(store, blobs, uploads, clock)
    tokens = PageTokens(load_signing_key(settings.page_key_path))
    limits = EdgeLimits()
    services = contract_services(
        run_calls=[
            RunCalls(
                Starts(store, agents, catalog, tools, clock, engine.reserve),
                runs,
                Stops(store),
                watches,
                tokens,
                clock,
            ),
            WatchCalls(watches, lists, runs, clock),
            ApprovalCalls(approvals, tokens),
            ArtifactCalls(artifacts, tokens),
            SteeringCalls(Pauses(store), Messages(store), runs),
            OperationCalls(Operations(store, operation_tokens, clock), tokens, clock),
        ],
        agent_calls=[AgentCalls(agents, Blueprints(catalog, agents), catalog, tokens)],
        callers=Callers(
            clock=clock,
            server_version=version("onbelay-server"),
            limits=CallerLimits(
                max_request_bytes=limits.request_bytes,
                max_input_bytes=MAX_INPUT_BYTES,
                max_artifact_bytes=settings.max_artifact_bytes,
                max_streams=limits.streams_per_principal,
            ),
        ),
    )
    grpc = GrpcServer(
        services,
        credentials=credentials,
        clock=clock,
        draining=asyncio.Event(),
        listen=settings.listen,
        tls=tls,
        insecure=settings.insecure,
        limits=limits,
    )
    return _House(
        settings=settings,
        token=token,
        grpc=grpc,
        engine=engine,
        watches=watches,
        lists=lists,
        store=store,
        python=python,
        exhausted=exhausted,
    )


def _credentials(settings: Settings, clock: SystemClock) -> tuple[Credentials, str | None]:
    """Who may call: the tokens file's people, or the one who runs the server."""
    if settings.tokens_file is not None:
        return TokensFile(settings.tokens_file, clock), None
    token = load_developer_token(settings.token_path)
    return developer_credentials(token, clock), token


def _tls(settings: Settings) -> Tls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Tls(settings.tls_cert.read_bytes(), settings.tls_key.read_bytes())
