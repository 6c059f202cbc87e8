"""Agents: what can be run, and the blueprints to begin from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc

from onbelay.v1.agent_service_pb2_grpc import AgentServiceStub
from onbelay_client import contract as pb
from onbelay_client.calling import Caller, new_request_id


class Agents:
    """AgentService. Every method gives the reply as it came; agents are named by id or name."""

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._stub = AgentServiceStub(channel)
        self._caller = caller

    def create(self, agent: pb.Agent, *, request_id: str | None = None) -> pb.CreateAgentResponse:
        """Make an agent at revision 1."""
        request = pb.CreateAgentRequest(agent=agent, request_id=request_id or new_request_id())
        return self._caller.call(self._stub.CreateAgent, request)

    def get(self, agent: str, *, revision: int | None = None) -> pb.GetAgentResponse:
        """One agent at its newest, or a given, revision."""
        return self._caller.call(
            self._stub.GetAgent, pb.GetAgentRequest(agent=agent, revision=revision)
        )

    def list(
        self,
        *,
        name_prefix: str = "",
        source: pb.AgentSource.ValueType = pb.AGENT_SOURCE_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
    ) -> pb.ListAgentsResponse:
        """A page of agents, by name."""
        request = pb.ListAgentsRequest(
            name_prefix=name_prefix, source=source, page_size=page_size, page_token=page_token
        )
        return self._caller.call(self._stub.ListAgents, request)

    def each(self) -> Iterator[pb.Agent]:
        """All agents, by name."""
        page_token = ""
        while True:
            page = self.list(page_size=200, page_token=page_token)
            yield from page.agents
            page_token = page.next_page_token
            if not page_token:
                return

    def update(
        self,
        agent: pb.Agent,
        fields: Sequence[str],
        *,
        etag: str = "",
        request_id: str | None = None,
    ) -> pb.UpdateAgentResponse:
        """Change the named fields, as a new revision; with `etag` only if nobody else did."""
        request = pb.UpdateAgentRequest(
            agent=agent, etag=etag, request_id=request_id or new_request_id()
        )
        request.update_mask.paths.extend(fields)
        return self._caller.call(self._stub.UpdateAgent, request)

    def delete(
        self, agent: str, *, etag: str = "", request_id: str | None = None
    ) -> pb.DeleteAgentResponse:
        """Delete an agent that no run uses."""
        request = pb.DeleteAgentRequest(
            agent=agent, etag=etag, request_id=request_id or new_request_id()
        )
        return self._caller.call(self._stub.DeleteAgent, request)

    def revisions(
        self, agent: str, *, page_size: int = 0, page_token: str = ""
    ) -> pb.ListAgentRevisionsResponse:
        """A page of an agent's revisions, newest first."""
        request = pb.ListAgentRevisionsRequest(
            agent=agent, page_size=page_size, page_token=page_token
        )
        return self._caller.call(self._stub.ListAgentRevisions, request)

    def validate(self, agent: pb.Agent) -> pb.ValidateAgentResponse:
        """What is wrong with an agent, without keeping it."""
        return self._caller.call(self._stub.ValidateAgent, pb.ValidateAgentRequest(agent=agent))

    def blueprints(self, *, page_size: int = 0, page_token: str = "") -> pb.ListBlueprintsResponse:
        """A page of the server's ready-made agents, by name."""
        request = pb.ListBlueprintsRequest(page_size=page_size, page_token=page_token)
        return self._caller.call(self._stub.ListBlueprints, request)

    def fork(
        self, blueprint: str, name: str = "", *, request_id: str | None = None
    ) -> pb.ForkBlueprintResponse:
        """Make an agent from a blueprint, under its own or another name."""
        request = pb.ForkBlueprintRequest(
            blueprint=blueprint, name=name, request_id=request_id or new_request_id()
        )
        return self._caller.call(self._stub.ForkBlueprint, request)
