"""A real server that answers for agents, approvals and artifacts over a house in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from onbelay.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.catalog import RegisteredCode
from onbelay_server.ports.credentials import Credential, CredentialKind
from onbelay_server.transport.grpc.agent_calls import AgentCalls
from onbelay_server.transport.grpc.approval_calls import ApprovalCalls
from onbelay_server.transport.grpc.artifact_calls import ArtifactCalls
from onbelay_server.transport.grpc.methods import Service
from onbelay_server.transport.grpc.page_token import PageTokens
from onbelay_server.transport.grpc.server import GrpcServer
from tests.grpc.edge_server import Refused, bearer
from tests.manual_clock import ManualClock
from tests.resources import ADA, ADMIN, BEN, HELLO, RIVAL, ROBOT, TABLES, House

PEOPLE = {
    "ada": ADA,
    "ben": BEN,
    "admin": ADMIN,
    "rival": RIVAL,
    "robot": replace(ROBOT, scopes=frozenset(ADMIN.scopes)),
}
R = TypeVar("R", bound=Message)


class People:
    """Credentials whose token is the person's name."""

    def find(self, token: str) -> Credential | None:
        principal: Principal | None = PEOPLE.get(token)
        if principal is None:
            return None
        return Credential(principal=principal, kind=CredentialKind.TOKEN, roles=())

    def tenants(self) -> set[str]:
        return {principal.tenant for principal in PEOPLE.values()}


@dataclass
class Desk:
    """The house, and stubs to the server before it."""

    house: House
    agents: Any
    runs: Any

    async def call(self, method: Any, request: Message, who: str = "ada") -> Any:
        """The reply of a unary call."""
        return await method(request, metadata=bearer(who), timeout=10)

    async def refused(self, method: Any, request: Message, who: str = "ada") -> Refused:
        """How a unary call was refused; fails the test when it was not."""
        try:
            await self.call(method, request, who)
        except grpc.aio.AioRpcError as problem:
            found = Refused.of(problem)
            assert found.infos == 1
            return found
        raise AssertionError("the call was accepted")


@asynccontextmanager
async def desk(codes: Iterable[RegisteredCode] = (HELLO, TABLES)) -> AsyncIterator[Desk]:
    """A server on a free loopback port."""
    house = House(codes)
    tokens = PageTokens(b"k" * 32)
    run_calls = [ApprovalCalls(house.approvals, tokens), ArtifactCalls(house.artifacts, tokens)]
    agent_calls = AgentCalls(house.agents, house.blueprints, house.catalog, tokens)
    server = GrpcServer(
        [
            Service(run_service_pb2.DESCRIPTOR.services_by_name["RunService"], run_calls),
            Service(agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"], [agent_calls]),
        ],
        credentials=People(),
        clock=ManualClock(),
        draining=asyncio.Event(),
        listen="127.0.0.1:0",
    )
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Desk(
                house,
                agent_service_pb2_grpc.AgentServiceStub(channel),
                run_service_pb2_grpc.RunServiceStub(channel),
            )
    finally:
        await server.drain(0)
