"""AgentService: agents, their revisions, blueprints."""

from __future__ import annotations

from dataclasses import replace

from onbelay.v1 import agent_pb2
from onbelay.v1 import agent_service_pb2 as pb
from onbelay_server.app.agent_rules import AgentDraft, Problem
from onbelay_server.app.agents import Agents, AgentView
from onbelay_server.app.blueprints import Blueprints
from onbelay_server.domain.agent import AgentSource, Limits
from onbelay_server.domain.error import InvalidArgument
from onbelay_server.ports.catalog import Catalog
from onbelay_server.ports.store import Place
from onbelay_server.transport.grpc.agent_draft import check_mask, draft_of, merged
from onbelay_server.transport.grpc.agent_wire import to_agent, to_blueprint, to_listed
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.page_token import PageTokens, fitting, page_size
from onbelay_server.transport.grpc.request_id import idempotency
from onbelay_server.transport.grpc.wire import to_timestamp


class AgentCalls:
    """Answers AgentService, but for documents (ExportAgent, ImportAgent) and ListTools."""

    def __init__(
        self, agents: Agents, blueprints: Blueprints, catalog: Catalog, tokens: PageTokens
    ) -> None:
        self._agents = agents
        self._blueprints = blueprints
        self._catalog = catalog
        self._tokens = tokens

    async def create_agent(
        self, request: pb.CreateAgentRequest, call: Call
    ) -> pb.CreateAgentResponse:
        draft = draft_of(request.agent, call.caller, self._catalog)
        view = await self._agents.create(call.caller, draft, idempotency(request, call))
        return pb.CreateAgentResponse(agent=to_agent(view, self._catalog))

    async def get_agent(self, request: pb.GetAgentRequest, call: Call) -> pb.GetAgentResponse:
        revision = request.revision if request.HasField("revision") else None
        view = await self._agents.get(call.caller, request.agent, revision)
        return pb.GetAgentResponse(agent=to_agent(view, self._catalog))

    async def list_agents(self, request: pb.ListAgentsRequest, call: Call) -> pb.ListAgentsResponse:
        limit = page_size(request.page_size)
        place = self._tokens.read(request, call.caller)
        source = None
        if request.source:
            name = agent_pb2.AgentSource.Name(request.source)
            source = AgentSource(name.removeprefix("AGENT_SOURCE_"))
        views = await self._agents.list_agents(
            call.caller,
            source=source,
            name_prefix=request.name_prefix,
            after=place.id if place else "",
            limit=limit + 1,
        )
        page = fitting(to_listed(view, self._catalog) for view in views[:limit])
        response = pb.ListAgentsResponse(agents=page)
        if len(page) < len(views):
            last = Place(0, page[-1].name)
            response.next_page_token = self._tokens.issue(request, call.caller, last)
        return response

    async def update_agent(
        self, request: pb.UpdateAgentRequest, call: Call
    ) -> pb.UpdateAgentResponse:
        wanted, paths = request.agent, list(request.update_mask.paths)
        check_mask(paths, by_id=bool(wanted.id))
        if "name" in paths and not wanted.name:
            raise InvalidArgument.of("agent.name", "must not be empty")

        def merge(view: AgentView) -> AgentDraft:
            message = merged(to_agent(view, self._catalog), wanted, paths)
            base = view.revision
            if "approval_policy" in paths:
                # Its expiry is a limit of the revision, and goes with the rest of the old policy.
                base = replace(base, limits=Limits())
            return draft_of(message, call.caller, self._catalog, base=base)

        view = await self._agents.update(
            call.caller,
            wanted.id or wanted.name,
            merge,
            etag=request.etag,
            idempotency=idempotency(request, call),
        )
        return pb.UpdateAgentResponse(agent=to_agent(view, self._catalog))

    async def delete_agent(
        self, request: pb.DeleteAgentRequest, call: Call
    ) -> pb.DeleteAgentResponse:
        await self._agents.delete(
            call.caller, request.agent, etag=request.etag, idempotency=idempotency(request, call)
        )
        return pb.DeleteAgentResponse()

    async def list_agent_revisions(
        self, request: pb.ListAgentRevisionsRequest, call: Call
    ) -> pb.ListAgentRevisionsResponse:
        limit = page_size(request.page_size)
        place = self._tokens.read(request, call.caller)
        views = await self._agents.list_revisions(
            call.caller,
            request.agent,
            before=place.create_us if place else None,
            limit=limit + 1,
        )
        page = fitting(
            agent_pb2.AgentRevision(
                revision=view.revision.revision,
                agent=to_agent(view, self._catalog),
                created_by=view.revision.created_by,
                create_time=to_timestamp(view.revision.create_us),
            )
            for view in views[:limit]
        )
        response = pb.ListAgentRevisionsResponse(revisions=page)
        if len(page) < len(views):
            last = Place(page[-1].revision, "")
            response.next_page_token = self._tokens.issue(request, call.caller, last)
        return response

    async def validate_agent(
        self, request: pb.ValidateAgentRequest, call: Call
    ) -> pb.ValidateAgentResponse:
        try:
            draft = draft_of(request.agent, call.caller, self._catalog)
        except InvalidArgument as refusal:
            problems = [_refused(one.field, one.description) for one in refusal.fields]
            return pb.ValidateAgentResponse(problems=problems, startable=False)
        found = self._agents.validate(draft)
        return pb.ValidateAgentResponse(
            problems=[_problem(one) for one in found],
            startable=not any(one.is_error for one in found),
        )

    async def list_blueprints(
        self, request: pb.ListBlueprintsRequest, call: Call
    ) -> pb.ListBlueprintsResponse:
        limit = page_size(request.page_size)
        place = self._tokens.read(request, call.caller)
        found = self._blueprints.list_blueprints(after=place.id if place else "", limit=limit + 1)
        response = pb.ListBlueprintsResponse()
        for code, settings in found[:limit]:
            response.blueprints.append(to_blueprint(code, settings, self._catalog))
        if len(found) > limit:
            last = Place(0, response.blueprints[-1].name)
            response.next_page_token = self._tokens.issue(request, call.caller, last)
        return response

    async def fork_blueprint(
        self, request: pb.ForkBlueprintRequest, call: Call
    ) -> pb.ForkBlueprintResponse:
        view = await self._blueprints.fork(
            call.caller, request.blueprint, request.name, idempotency(request, call)
        )
        return pb.ForkBlueprintResponse(agent=to_agent(view, self._catalog))


def _problem(problem: Problem) -> pb.AgentProblem:
    severity = (
        pb.ProblemSeverity.PROBLEM_SEVERITY_ERROR
        if problem.is_error
        else pb.ProblemSeverity.PROBLEM_SEVERITY_WARNING
    )
    return pb.AgentProblem(
        field=f"agent.{problem.field}" if problem.field else "agent",
        message=problem.message,
        severity=severity,
    )


def _refused(field: str, message: str) -> pb.AgentProblem:
    return pb.AgentProblem(
        field=field, message=message, severity=pb.ProblemSeverity.PROBLEM_SEVERITY_ERROR
    )
