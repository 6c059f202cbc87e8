"""Agents that come from code: the rows that make the operator's code startable by name."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onbelay_server.domain.agent import Agent, AgentRevision, AgentSource
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.revising import created, is_same, revised
from onbelay_server.ports.catalog import Catalog, RegisteredCode
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import Store

log = logging.getLogger(__name__)

OPERATOR = "operator"
"""Owner of the agents that come from code; no credential has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What registering a tenant's agents came to, by name."""

    made: tuple[str, ...] = ()
    revised: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    """Names under which the tenant has an agent of its own, which stays: this code cannot be
    started there until that one is renamed."""


class Registration:
    """Keeps, in each tenant, one agent for each piece of registered code."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        clock: Clock,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._entropy = entropy
        self._seen: set[str] = set()

    async def start(self, tenants: Iterable[str]) -> dict[str, Registered]:
        """Register in every tenant that is known at start."""
        return {tenant: await self.ensure(tenant) for tenant in sorted(set(tenants))}

    async def ensure(self, tenant: str) -> Registered:
        """Register in one tenant, once for each start of the process. Safe to call at any time and
        from several processes; may raise Unavailable, and is tried again at the next call then."""
        if tenant in self._seen:
            return Registered()
        outcomes: dict[str, list[str]] = {"made": [], "revised": [], "taken": [], "kept": []}
        for code in self._catalog.list():
            outcomes[await self._register(tenant, code)].append(code.name)
        self._seen.add(tenant)
        for name in outcomes["taken"]:
            log.warning(
                "code is not offered: the tenant has an agent of its own of that name",
                extra={"action": "agent_name_taken", "tenant": tenant, "agent": name},
            )
        return Registered(
            made=tuple(outcomes["made"]),
            revised=tuple(outcomes["revised"]),
            taken=tuple(outcomes["taken"]),
        )

    async def _register(self, tenant: str, code: RegisteredCode) -> str:
        new_id = make_id("agt", self._clock.now_us(), self._entropy(10))
        while True:
            known = await self._store.agent_named(tenant, code.name)
            number = known.revision if known else 0
            agent_id = known.id if known else new_id

            def decide(rows: Rows, now_us: int, seen: Agent | None = known) -> Change[str | None]:
                agent = rows.agent_named(tenant, code.name)
                if agent is not None and (
                    seen is None or (agent.id, agent.revision) != (seen.id, seen.revision)
                ):
                    return Change(result=None)
                if agent is None:
                    return _made(new_id, tenant, code, now_us)
                return _compared(agent, rows.revision(agent.id, agent.revision), code, now_us)

            reads = Reads(
                agent_names=[(tenant, code.name)],
                agents=[agent_id],
                revisions=[(agent_id, number), (agent_id, number + 1)],
            )
            outcome = (await self._store.write(reads, decide)).result
            if outcome is not None:
                return outcome


def code_settings(code: RegisteredCode) -> AgentRevision:
    """What an agent runs with that follows this code; what the service gives is left empty."""
    return AgentRevision(
        agent_id="",
        revision=0,
        create_us=0,
        created_by="",
        description=code.description,
        blueprint=code.name,
        harness=code.harness,
        input_schema_json=code.input_schema_json,
        output_schema_json=code.output_schema_json,
        allowed_tools=code.tools,
        highest_risk=code.highest_risk,
        limits=code.limits,
        on_code_change=code.on_code_change,
        accepts_messages=code.accepts_messages,
        extra_json=json.dumps({"fingerprint": code.fingerprint}, separators=(",", ":")),
    )


def _made(agent_id: str, tenant: str, code: RegisteredCode, now_us: int) -> Change[str | None]:
    agent, first = created(
        code_settings(code),
        agent_id=agent_id,
        tenant=tenant,
        name=code.name,
        owner=OPERATOR,
        source=AgentSource.CODE,
        created_by="",
        now_us=now_us,
    )
    return Change(result="made", put=[agent, first])


def _compared(
    agent: Agent, current: AgentRevision | None, code: RegisteredCode, now_us: int
) -> Change[str | None]:
    if agent.source is not AgentSource.CODE:
        return Change(result="taken")
    after, wanted = revised(
        agent, code_settings(code), name=agent.name, created_by="", now_us=now_us
    )
    if current is not None and is_same(current, wanted):
        return Change(result="kept")
    return Change(result="revised", put=[after, wanted])
