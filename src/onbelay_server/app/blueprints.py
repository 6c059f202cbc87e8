"""Ready-made agents to start from."""

from __future__ import annotations

from dataclasses import replace

from onbelay_server.app.agent_rules import AgentDraft
from onbelay_server.app.agents import Agents, AgentView
from onbelay_server.app.idempotency import Idempotency
from onbelay_server.app.registration import code_settings
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.error import AlreadyExists, NotFound
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.catalog import Catalog, RegisteredCode

MAX_NAMES = 100
"""How many names are tried where none was asked for."""


class Blueprints:
    """The registered code that is offered as blueprints, the same for every tenant."""

    def __init__(self, catalog: Catalog, agents: Agents) -> None:
        self._catalog = catalog
        self._agents = agents

    def list_blueprints(
        self, *, after: str, limit: int
    ) -> list[tuple[RegisteredCode, AgentRevision]]:
        """Blueprints by name behind `after`, each with the settings a fork begins with."""
        chosen = [code for code in self._catalog.list() if code.is_blueprint and code.name > after]
        return [(code, _settings(code)) for code in chosen[:limit]]

    async def fork(
        self, caller: Principal, blueprint: str, name: str, idempotency: Idempotency | None
    ) -> AgentView:
        """Make an agent of the caller's own from a blueprint, startable at revision 1.

        Without a name it gets the blueprint's, with -2, -3 … behind it where that is taken. Raises
        NotFound, and as Agents.create does.
        """
        code = self._catalog.get(blueprint)
        if code is None or not code.is_blueprint:
            raise NotFound("no such blueprint", metadata={"resource": "blueprint"})
        settings = _settings(code)
        if name:
            draft = AgentDraft(name=name, settings=settings)
            return await self._agents.create(caller, draft, idempotency)
        for number in range(1, MAX_NAMES + 1):
            suffix = f"-{number}" if number > 1 else ""
            own = code.name[: 63 - len(suffix)] + suffix
            try:
                draft = AgentDraft(name=own, settings=settings)
                return await self._agents.create(caller, draft, idempotency)
            except AlreadyExists:
                continue
        raise AlreadyExists("the blueprint's name is taken: give one", metadata={"name": code.name})


def _settings(code: RegisteredCode) -> AgentRevision:
    # Only agents that follow their code keep its fingerprint.
    return replace(code_settings(code), extra_json="{}")
