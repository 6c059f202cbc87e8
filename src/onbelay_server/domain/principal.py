"""Who calls, and what of a tenant's things they may see and decide."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a credential allows. `*` on a wire or in a file means all but RUN_CODE."""

    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    APPROVALS_DECIDE = "approvals:decide"
    OPERATIONS_COMPLETE = "operations:complete"
    AGENTS_READ = "agents:read"
    AGENTS_WRITE = "agents:write"
    AGENTS_RUN_CODE = "agents:run_code"
    TENANT_ADMIN = "tenant:admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller, as its credential says: never as a request says."""

    tenant: str
    id: str
    """`user:ada` or `key:…`; unique in the tenant."""
    is_person: bool
    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        return Scope.TENANT_ADMIN in self.scopes

    @property
    def viewer(self) -> Viewer:
        return Viewer(tenant=self.tenant, principal=self.id, is_admin=self.is_admin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Whose eyes a query looks through. A query of the store takes one or is the engine's own."""

    tenant: str
    principal: str
    is_admin: bool

    def sees(self, *, tenant: str, starter: str, agent_owner: str) -> bool:
        """Starter and tenant admin see everything of a run, the agent's owner may read it."""
        return self.tenant == tenant and (self.is_admin or self.principal in (starter, agent_owner))

    def controls(self, *, tenant: str, starter: str) -> bool:
        """Only the starter and the tenant's admin change a run."""
        return self.tenant == tenant and (self.is_admin or self.principal == starter)
