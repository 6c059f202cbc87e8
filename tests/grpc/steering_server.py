"""A real server that answers for pauses, messages and operations over a house in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc.aio

from onbelay.v1 import run_service_pb2, run_service_pb2_grpc
from onbelay.v1.event_pb2 import RunEvent
from onbelay_server.app.callers import CallerLimits, Callers
from onbelay_server.app.credentials import token_digest
from onbelay_server.app.messages import Messages
from onbelay_server.app.operation_token import OperationCredentials, OperationTokens
from onbelay_server.app.operations import Operations
from onbelay_server.app.pauses import Pauses
from onbelay_server.app.runs import Runs
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.change import Change, Entity, Reads
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import RunState, StepKind
from onbelay_server.transport.grpc.access_calls import ACCESS_SERVICE, AccessCalls
from onbelay_server.transport.grpc.methods import Service
from onbelay_server.transport.grpc.operation_calls import OperationCalls
from onbelay_server.transport.grpc.page_token import PageTokens
from onbelay_server.transport.grpc.server import GrpcServer
from onbelay_server.transport.grpc.steering_calls import SteeringCalls
from tests.grpc.resource_server import Desk, People
from tests.manual_clock import ManualClock
from tests.resources import ADA, House

TOKENS = OperationTokens(b"o" * 32)
TALKER = "agt_talker"


def token_of(operation_id: str, tenant: str = "default") -> str:
    """The token that the operation's agent was given."""
    return TOKENS.token(operation_id, tenant)


class SteeringDesk(Desk):
    """The desk, and ways to put things into its house."""

    access: grpc.aio.Channel

    async def put_run(
        self,
        run_id: str,
        state: RunState = RunState.QUEUED,
        *,
        starter: Principal = ADA,
        parent: Run | None = None,
        listens: bool = False,
    ) -> Run:
        """A run of ADA's, as a child of `parent` if there is one."""
        agent_id = TALKER if listens else "agt_1"
        run = await self.house.run(run_id, starter=starter, state=state, agent_id=agent_id)
        if parent is not None:
            child = replace(run, parent_id=parent.id, root_id=parent.root_id, depth=1)
            await self.house.store.write(
                Reads(runs=[run_id]), lambda rows, now_us: Change(result=None, put=[child])
            )
            return child
        if listens:
            revision = AgentRevision(
                agent_id=TALKER, revision=1, create_us=0, created_by="", accepts_messages=True
            )
            await self.house.store.write(
                Reads(revisions=[(TALKER, 1)]),
                lambda rows, now_us: Change(result=None, put=[revision]),
            )
        return run

    async def put_operation(
        self,
        run: Run,
        operation_id: str = "op_1",
        *,
        is_awaited: bool = False,
        schema: object = None,
        expires_in_us: int | None = None,
    ) -> Operation:
        """An open operation of the run, which waits for it if told so."""
        now_us = self.house.clock.now_us()
        operation = Operation(
            id=operation_id,
            tenant=run.tenant,
            run_id=run.id,
            root_id=run.root_id,
            starter=run.starter,
            agent_owner=run.agent_owner,
            step_id=f"main:operation:{operation_id}#1",
            name="invoice",
            result_schema_json=json.dumps(schema) if schema else "",
            token_sha256=token_digest(token_of(operation_id, run.tenant)),
            create_us=now_us,
            expire_us=None if expires_in_us is None else now_us + expires_in_us,
        )
        wait = Wait(
            run_id=run.id,
            step_id=f"main:operation-result:{operation_id}#1",
            kind=StepKind.OPERATION,
            since_us=now_us,
            until_us=operation.expire_us,
            operation_id=operation.id,
        )
        put: list[Entity] = [operation, wait] if is_awaited else [operation]
        reads = Reads(runs=[run.id], open_of=[run.id], operations=[operation.id])
        await self.house.store.write(reads, lambda rows, at: Change(result=None, put=put))
        return operation

    async def kinds(self, run_id: str) -> list[str]:
        """The kinds of the run's events behind its first."""
        events = await self.house.store.events(run_id, after=1, limit=1000, max_bytes=2**20)
        return [RunEvent.FromString(one.body).WhichOneof("payload") or "" for one in events]


@asynccontextmanager
async def steering_desk() -> AsyncIterator[SteeringDesk]:
    """A server on a free loopback port."""
    house, clock = House(), ManualClock()
    runs = Runs(house.store, None)  # type: ignore[arg-type]  # nothing is deleted here
    calls = [
        SteeringCalls(Pauses(house.store), Messages(house.store), runs),
        OperationCalls(
            Operations(house.store, TOKENS, house.clock), PageTokens(b"k" * 32), house.clock
        ),
    ]
    services = [Service(run_service_pb2.DESCRIPTOR.services_by_name["RunService"], calls)]
    limits = CallerLimits(
        max_request_bytes=1, max_input_bytes=1, max_artifact_bytes=1, max_streams=1
    )
    callers = Callers(clock=clock, server_version="0", limits=limits)
    access = Service(ACCESS_SERVICE, [AccessCalls(callers, services)])
    server = GrpcServer(
        [*services, access],
        credentials=OperationCredentials(People(), TOKENS),
        clock=clock,
        draining=asyncio.Event(),
        listen="127.0.0.1:0",
    )
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            found = SteeringDesk(house, None, run_service_pb2_grpc.RunServiceStub(channel))
            found.access = channel
            yield found
    finally:
        await server.drain(0)
