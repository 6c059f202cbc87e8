"""How agents are made and change: every change is a revision, and revisions never change."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from onbelay_server.domain.agent import Agent, AgentRevision, AgentSource
from onbelay_server.domain.change import Rows
from onbelay_server.domain.error import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
)
from onbelay_server.domain.principal import Principal


def created(
    settings: AgentRevision,
    *,
    agent_id: str,
    tenant: str,
    name: str,
    owner: str,
    source: AgentSource,
    created_by: str,
    now_us: int,
) -> tuple[Agent, AgentRevision]:
    """A new agent and its first revision. Of `settings`, what the service gives is replaced."""
    agent = Agent(
        id=agent_id,
        tenant=tenant,
        name=name,
        owner=owner,
        source=source,
        revision=1,
        etag=_etag(agent_id, 1),
        create_us=now_us,
        update_us=now_us,
    )
    return agent, _numbered(settings, agent, created_by, now_us)


def revised(
    agent: Agent, settings: AgentRevision, *, name: str, created_by: str, now_us: int
) -> tuple[Agent, AgentRevision]:
    """The agent with one revision more."""
    number = agent.revision + 1
    after = replace(
        agent, name=name, revision=number, etag=_etag(agent.id, number), update_us=now_us
    )
    return after, _numbered(settings, after, created_by, now_us)


def deleted(agent: Agent, now_us: int) -> Agent:
    """The agent, gone for everybody but its runs; its name is free."""
    return replace(agent, delete_us=now_us, update_us=now_us)


def is_same(current: AgentRevision, wanted: AgentRevision) -> bool:
    """Whether two revisions say the same, whenever and by whomever they were made."""
    return wanted == replace(
        current,
        agent_id=wanted.agent_id,
        revision=wanted.revision,
        create_us=wanted.create_us,
        created_by=wanted.created_by,
    )


def check_changeable(agent: Agent | None, caller: Principal, etag: str = "") -> Agent:
    """The agent, if the caller may change it as it stands.

    Raises NotFound, FailedPrecondition (AGENT_READ_ONLY), PermissionDenied, Aborted (ETAG_MISMATCH;
    an empty etag fits always).
    """
    if agent is None or agent.delete_us is not None:
        raise unknown_agent()
    if agent.source is AgentSource.CODE:
        raise FailedPrecondition(
            "this agent comes from code and is changed there", reason="AGENT_READ_ONLY"
        )
    if not (caller.is_admin or caller.id == agent.owner):
        raise PermissionDenied(
            "only the agent's owner or an administrator changes it",
            metadata={"scope": "tenant:admin"},
        )
    if etag and etag != agent.etag:
        raise Aborted(
            "the agent changed since it was read",
            reason="ETAG_MISMATCH",
            metadata={"etag": agent.etag},
        )
    return agent


def check_name(rows: Rows, tenant: str, name: str) -> None:
    """Raise AlreadyExists when an agent of the tenant has the name."""
    if rows.agent_named(tenant, name) is not None:
        raise AlreadyExists("the name is taken", metadata={"name": name})


def unknown_agent() -> NotFound:
    """The same for an agent that never was, that was deleted and that is another tenant's."""
    return NotFound("no such agent", metadata={"resource": "agent"})


def _numbered(settings: AgentRevision, agent: Agent, created_by: str, now_us: int) -> AgentRevision:
    return replace(
        settings,
        agent_id=agent.id,
        revision=agent.revision,
        create_us=now_us,
        created_by=created_by,
    )


def _etag(agent_id: str, revision: int) -> str:
    return hashlib.sha256(f"{agent_id}/{revision}".encode()).hexdigest()[:20]
