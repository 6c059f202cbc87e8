"""Whose runs a caller may see and change: unknown and somebody else's are one and the same."""

from __future__ import annotations

from onbelay_server.domain.error import NotFound, PermissionDenied
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run


def seen(run: Run | None, caller: Principal) -> Run:
    """The run, if the caller may see it. Raises NotFound with the same text in every other case."""
    if run is None or not caller.viewer.sees(
        tenant=run.tenant, starter=run.starter, agent_owner=run.agent_owner
    ):
        raise NotFound("no such run", metadata={"resource": "run"})
    return run


def controlled(run: Run | None, caller: Principal) -> Run:
    """The run, if the caller may change it. One that the caller only reads: PermissionDenied."""
    found = seen(run, caller)
    if not caller.viewer.controls(tenant=found.tenant, starter=found.starter):
        raise PermissionDenied("only the run's starter and the tenant's admin may do this")
    return found
