"""Making, changing and finding agents."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from onbelay_server.app.agent_rules import AgentDraft, Problem, check, problems
from onbelay_server.app.idempotency import Idempotency
from onbelay_server.app.registration import Registration, etag_of
from onbelay_server.domain.agent import Agent, AgentRevision, AgentSource
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.principal import Principal, Viewer
from onbelay_server.domain.state import FINAL, RunState
from onbelay_server.ports.catalog import Catalog
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import Place, RunFilter, Store
from onbelay_server.ports.tools import Tools

MAX_AGENTS = 1000
"""Of one tenant, so that a list by name is sorted in memory."""
_PAGE = 250
_ACTIVE = tuple(state for state in RunState if state not in FINAL)


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
            raise NotFound("no such agent", metadata={"resource": "agent"})
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
        self, caller: Principal, draft: AgentDraft, once: Idempotency | None
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
            if once and (earlier := once.answered(rows)):
                return Change(result=earlier)
            _check_name(rows, caller.tenant, draft.name)
            agent = Agent(
                id=agent_id,
                tenant=caller.tenant,
                name=draft.name,
                owner=caller.id,
                source=AgentSource.API,
                revision=1,
                etag=etag_of(agent_id, 1),
                create_us=now_us,
                update_us=now_us,
            )
            first = replace(
                draft.settings,
                agent_id=agent_id,
                revision=1,
                create_us=now_us,
                created_by=caller.id,
            )
            remembered = [once.remembered(_result(agent), now_us)] if once else []
            return Change(result=_result(agent), put=[agent, first, *remembered])

        reads = Reads(
            agents=[agent_id],
            agent_names=[(caller.tenant, draft.name)],
            revisions=[(agent_id, 1)],
            requests=[once.key] if once else [],
        )
        return await self._reread((await self._store.write(reads, decide)).result)

    async def update(
        self,
        caller: Principal,
        agent: str,
        merge: Callable[[AgentView], AgentDraft],
        *,
        etag: str,
        once: Idempotency | None,
    ) -> AgentView:
        """Make a new revision: `merge` is pure and says what becomes of the current one. Raises
        NotFound, PermissionDenied, FailedPrecondition (AGENT_READ_ONLY), Aborted (ETAG_MISMATCH),
        AlreadyExists, InvalidArgument."""
        found = await self.find(caller.tenant, agent)
        while True:
            _check_changeable(found, caller)
            draft = merge(await self._view(found, None))
            check(draft, self._catalog)

            def decide(
                rows: Rows, now_us: int, seen: Agent = found, wanted: AgentDraft = draft
            ) -> Change[str | None]:
                if once and (earlier := once.answered(rows)):
                    return Change(result=earlier)
                current = _changeable(rows, seen, caller, etag)
                if current.revision != seen.revision:
                    return Change(result=None)
                if wanted.name != current.name:
                    _check_name(rows, caller.tenant, wanted.name)
                return _revised(current, wanted, caller, once, now_us)

            reads = Reads(
                agents=[found.id],
                agent_names=[(caller.tenant, draft.name)],
                revisions=[(found.id, found.revision + 1)],
                requests=[once.key] if once else [],
            )
            result = (await self._store.write(reads, decide)).result
            if result is not None:
                return await self._reread(result)
            found = await self.find(caller.tenant, found.id)

    async def delete(
        self, caller: Principal, agent: str, *, etag: str, once: Idempotency | None
    ) -> None:
        """Delete an agent; its ended runs keep their revision. Raises NotFound, PermissionDenied,
        FailedPrecondition (AGENT_READ_ONLY, AGENT_IN_USE) or Aborted (ETAG_MISMATCH)."""
        if once and await self._is_answered(once):
            return
        found = await self.find(caller.tenant, agent)
        _check_changeable(found, caller)
        await self._check_unused(found)

        def decide(rows: Rows, now_us: int) -> Change[None]:
            if once and once.answered(rows):
                return Change(result=None)
            current = _changeable(rows, found, caller, etag)
            gone = replace(current, delete_us=now_us, update_us=now_us)
            remembered = [once.remembered(current.id, now_us)] if once else []
            return Change(result=None, put=[gone, *remembered])

        reads = Reads(agents=[found.id], requests=[once.key] if once else [])
        await self._store.write(reads, decide)

    async def _is_answered(self, once: Idempotency) -> bool:
        """Whether this is a repeat: what it named may be gone by now."""
        unit = await self._store.write(
            Reads(requests=[once.key]),
            lambda rows, now_us: Change(result=once.answered(rows) is not None),
        )
        return unit.result

    async def _check_unused(self, agent: Agent) -> None:
        everything = Viewer(tenant=agent.tenant, principal="", is_admin=True)
        active = await self._store.list_runs(
            everything, RunFilter(agent_ids=[agent.id], states=_ACTIVE), after=None, limit=100
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
            raise NotFound("no such agent", metadata={"resource": "agent"})
        return await self._view(agent, int(revision))


def _result(agent: Agent) -> str:
    return f"{agent.id}@{agent.revision}"


def _check_name(rows: Rows, tenant: str, name: str) -> None:
    if rows.agent_named(tenant, name) is not None:
        raise AlreadyExists("the name is taken", reason="NAME_TAKEN", metadata={"name": name})


def _check_changeable(agent: Agent, caller: Principal) -> None:
    if agent.source is AgentSource.CODE:
        raise FailedPrecondition(
            "this agent comes from code and is changed there", reason="AGENT_READ_ONLY"
        )
    if not (caller.is_admin or caller.id == agent.owner):
        raise PermissionDenied(
            "only the agent's owner or an administrator changes it",
            metadata={"scope": "tenant:admin"},
        )


def _changeable(rows: Rows, seen: Agent, caller: Principal, etag: str) -> Agent:
    """The agent as it stands in the unit, if the caller may change it now."""
    current = rows.agent(seen.id)
    if current is None or current.delete_us is not None:
        raise NotFound("no such agent", metadata={"resource": "agent"})
    _check_changeable(current, caller)
    if etag and etag != current.etag:
        raise Aborted(
            "the agent changed since it was read",
            reason="ETAG_MISMATCH",
            metadata={"etag": current.etag},
        )
    return current


def _revised(
    current: Agent, draft: AgentDraft, caller: Principal, once: Idempotency | None, now_us: int
) -> Change[str | None]:
    number = current.revision + 1
    after = replace(
        current,
        name=draft.name,
        revision=number,
        etag=etag_of(current.id, number),
        update_us=now_us,
    )
    written = replace(
        draft.settings,
        agent_id=current.id,
        revision=number,
        create_us=now_us,
        created_by=caller.id,
    )
    remembered = [once.remembered(_result(after), now_us)] if once else []
    return Change(result=_result(after), put=[after, written, *remembered])
