"""Making, changing and finding agents."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from onbelay_server.app.agent_rules import AgentDraft, Problem, check, problems
from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.registration import Registration
from onbelay_server.domain.agent import Agent, AgentRevision, AgentSource
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import (
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.principal import Principal, Viewer
from onbelay_server.domain.revising import (
    check_changeable,
    check_name,
    created,
    deleted,
    revised,
    unknown_agent,
)
from onbelay_server.domain.state import FINAL, RunState
from onbelay_server.ports.catalog import Catalog
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import Place, RunFilter, Store
from onbelay_server.ports.tools import Tools

MAX_AGENTS = 1000
"""Of one tenant, so that a list by name is sorted in memory."""
_PAGE = 250
_UNFINISHED = tuple(state for state in RunState if state not in FINAL)


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent and one of its revisions."""

    agent: Agent
    revision: AgentRevision


class Agents:
    """The tenant's agents. Whoever may read agents sees all of them; owners and admins change."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        tools: Tools,
        registration: Registration,
        clock: Clock,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._tools = tools
        self._registration = registration
        self._clock = clock
        self._entropy = entropy

    async def find(self, tenant: str, agent: str) -> Agent:
        """The agent of that id or name. Raises NotFound, also for one that was deleted."""
        await self._registration.ensure(tenant)
        if agent.startswith("agt_"):
            found = await self._store.agent(agent)
        else:
            found = await self._store.agent_named(tenant, agent)
        if found is None or found.tenant != tenant or found.delete_us is not None:
            raise unknown_agent()
        return found

    async def get(self, caller: Principal, agent: str, revision: int | None) -> AgentView:
        """One agent, at its newest or the given revision."""
        found = await self.find(caller.tenant, agent)
        return await self._view(found, revision)

    async def list_agents(
        self,
        caller: Principal,
        *,
        source: AgentSource | None,
        name_prefix: str,
        after: str,
        limit: int,
    ) -> list[AgentView]:
        """Agents by name, behind the name `after`."""
        await self._registration.ensure(caller.tenant)
        chosen = [
            agent
            for agent in await self._all(caller.tenant)
            if agent.name > after
            and agent.name.startswith(name_prefix)
            and source in (None, agent.source)
        ]
        chosen.sort(key=lambda agent: agent.name)
        return [await self._view(agent, None) for agent in chosen[:limit]]

    async def list_revisions(
        self, caller: Principal, agent: str, *, before: int | None, limit: int
    ) -> list[AgentView]:
        """An agent's revisions below `before`, newest first."""
        found = await self.find(caller.tenant, agent)
        revisions = await self._store.list_revisions(found.id, before=before, limit=limit)
        return [AgentView(found, revision) for revision in revisions]

    def validate(self, draft: AgentDraft) -> list[Problem]:
        """What is wrong with a draft; nothing is kept."""
        return problems(draft, self._catalog, self._tools)

    async def create(
        self, caller: Principal, draft: AgentDraft, idempotency: Idempotency | None
    ) -> AgentView:
        """Make an agent at revision 1, owned by the caller. Raises InvalidArgument, AlreadyExists
        or ResourceExhausted."""
        check(draft, self._catalog)
        await self._registration.ensure(caller.tenant)
        if len(await self._all(caller.tenant)) >= MAX_AGENTS:
            raise ResourceExhausted(
                f"a tenant has at most {MAX_AGENTS} agents",
                metadata={"quota": "agents", "limit": str(MAX_AGENTS)},
            )
        agent_id = make_id("agt", self._clock.now_us(), self._entropy(10))

        def decide(rows: Rows, now_us: int) -> Change[str]:
            if idempotency and (earlier := idempotency.answered(rows)):
                return Change(result=earlier)
            check_name(rows, caller.tenant, draft.name)
            agent, first = created(
                draft.settings,
                agent_id=agent_id,
                tenant=caller.tenant,
                name=draft.name,
                owner=caller.id,
                source=AgentSource.API,
                created_by=caller.id,
                now_us=now_us,
            )
            remembered = [idempotency.remembered(_result(agent), now_us)] if idempotency else []
            return Change(result=_result(agent), put=[agent, first, *remembered])

        reads = Reads(
            agents=[agent_id],
            agent_names=[(caller.tenant, draft.name)],
            revisions=[(agent_id, 1)],
            requests=keys_of(idempotency),
        )
        return await self._reread((await self._store.write(reads, decide)).result)

    async def update(
        self,
        caller: Principal,
        agent: str,
        merge: Callable[[AgentView], AgentDraft],
        *,
        etag: str,
        idempotency: Idempotency | None,
    ) -> AgentView:
        """Make a new revision: `merge` is pure and says what becomes of the current one. Raises
        NotFound, PermissionDenied, FailedPrecondition (AGENT_READ_ONLY), Aborted (ETAG_MISMATCH),
        AlreadyExists, InvalidArgument."""
        found = await self.find(caller.tenant, agent)
        while True:
            check_changeable(found, caller)
            draft = merge(await self._view(found, None))
            check(draft, self._catalog)

            def decide(
                rows: Rows, now_us: int, seen: Agent = found, wanted: AgentDraft = draft
            ) -> Change[str | None]:
                if idempotency and (earlier := idempotency.answered(rows)):
                    return Change(result=earlier)
                current = check_changeable(rows.agent(seen.id), caller, etag)
                if current.revision != seen.revision:
                    return Change(result=None)
                if wanted.name != current.name:
                    check_name(rows, caller.tenant, wanted.name)
                after, written = revised(
                    current,
                    wanted.settings,
                    name=wanted.name,
                    created_by=caller.id,
                    now_us=now_us,
                )
                remembered = [idempotency.remembered(_result(after), now_us)] if idempotency else []
                return Change(result=_result(after), put=[after, written, *remembered])

            reads = Reads(
                agents=[found.id],
                agent_names=[(caller.tenant, draft.name)],
                revisions=[(found.id, found.revision + 1)],
                requests=keys_of(idempotency),
            )
            result = (await self._store.write(reads, decide)).result
            if result is not None:
                return await self._reread(result)
            found = await self.find(caller.tenant, found.id)

    async def delete(
        self, caller: Principal, agent: str, *, etag: str, idempotency: Idempotency | None
    ) -> None:
        """Delete an agent; its ended runs keep their revision. Raises NotFound, PermissionDenied,
        FailedPrecondition (AGENT_READ_ONLY, AGENT_IN_USE) or Aborted (ETAG_MISMATCH)."""
        if idempotency and await idempotency.recall(self._store) is not None:
            return  # a repeat: what it named is gone
        found = await self.find(caller.tenant, agent)
        check_changeable(found, caller)
        await self._check_unused(found)

        def decide(rows: Rows, now_us: int) -> Change[None]:
            if idempotency and idempotency.answered(rows):
                return Change(result=None)
            gone = deleted(check_changeable(rows.agent(found.id), caller, etag), now_us)
            remembered = [idempotency.remembered(gone.id, now_us)] if idempotency else []
            return Change(result=None, put=[gone, *remembered])

        reads = Reads(agents=[found.id], requests=keys_of(idempotency))
        await self._store.write(reads, decide)

    async def _check_unused(self, agent: Agent) -> None:
        everything = Viewer(tenant=agent.tenant, principal="", is_admin=True)
        active = await self._store.list_runs(
            everything, RunFilter(agent_ids=[agent.id], states=_UNFINISHED), after=None, limit=100
        )
        if active:
            raise FailedPrecondition(
                "runs of this agent have not ended",
                reason="AGENT_IN_USE",
                metadata={"active_runs": str(len(active))},
            )

    async def _all(self, tenant: str) -> list[Agent]:
        agents: list[Agent] = []
        place: Place | None = None
        while True:
            page = await self._store.list_agents(tenant, after=place, limit=_PAGE)
            agents += page
            if len(page) < _PAGE:
                return agents
            place = Place(page[-1].create_us, page[-1].id)

    async def _view(self, agent: Agent, revision: int | None) -> AgentView:
        stored = await self._store.revision(agent.id, revision or agent.revision)
        if stored is None:
            raise NotFound("no such revision", metadata={"resource": "agent_revision"})
        return AgentView(agent, stored)

    async def _reread(self, result: str) -> AgentView:
        """The answer to the request that made this revision, also when it is repeated later."""
        agent_id, _, revision = result.partition("@")
        agent = await self._store.agent(agent_id)
        if agent is None:
            raise unknown_agent()
        return await self._view(agent, int(revision))


def _result(agent: Agent) -> str:
    return f"{agent.id}@{agent.revision}"
