"""Whose things a caller may see and change: unknown and somebody else's are one and the same."""

from __future__ import annotations

from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.error import NotFound, PermissionDenied
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run


def sees(caller: Principal, run: Run) -> bool:
    """Whether the caller may read the run."""
    return caller.viewer.sees(tenant=run.tenant, starter=run.starter, agent_owner=run.agent_owner)


def controls(caller: Principal, run: Run) -> bool:
    """Whether the caller may change the run."""
    return caller.viewer.controls(tenant=run.tenant, starter=run.starter)


def seen(run: Run | None, caller: Principal) -> Run:
    """The run, if the caller may see it. Raises NotFound otherwise."""
    if run is None or not sees(caller, run):
        raise unknown_run()
    return run


def unknown_run() -> NotFound:
    """The same for a run that never was, that is gone and that is somebody else's."""
    return NotFound("no such run", metadata={"resource": "run"})


def controlled(run: Run | None, caller: Principal) -> Run:
    """The run, if the caller may change it. One that the caller only reads: PermissionDenied."""
    found = seen(run, caller)
    if not controls(caller, found):
        raise PermissionDenied("only the run's starter and the tenant's admin may do this")
    return found


def sees_file(caller: Principal, artifact: Artifact, run: Run | None, now_us: int) -> bool:
    """Whether the caller may read the artifact; `run` is its run, if it has one.

    A file of a run is seen by whoever sees the run; an upload, until it expires, by its owner and
    the tenant's admins."""
    if artifact.tenant != caller.tenant:
        return False
    if artifact.run_id is not None:
        return run is not None and sees(caller, run)
    is_kept = artifact.expire_us is None or artifact.expire_us > now_us
    return is_kept and (caller.is_admin or caller.id == artifact.owner)
