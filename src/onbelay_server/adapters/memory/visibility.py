"""Who sees what, and what a filter matches, said in Python as the SQL queries say it."""

from __future__ import annotations

from onbelay_server.domain.approval import Approval
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.run import Run
from onbelay_server.ports.store import RunFilter


def sees(viewer: Viewer, run: Run) -> bool:
    """The viewer may read the run."""
    return viewer.sees(tenant=run.tenant, starter=run.starter, agent_owner=run.agent_owner)


def decides(principal: str, approval: Approval) -> bool:
    """The principal is a decider of the approval: one listed, or the starter where nobody is."""
    return principal in (approval.approvers or (approval.starter,))


def matches(which: RunFilter, run: Run) -> bool:
    """Every field of the filter that is not empty fits the run."""
    names = (run.agent_id, run.agent_name)
    return (
        (not which.agent_ids or any(name in which.agent_ids for name in names))
        and (not which.states or run.state in which.states)
        and all(run.labels.get(key) == value for key, value in which.labels.items())
        and _fits(which.session_id, run.session_id)
        and _fits(which.starter, run.starter)
        and _fits(which.parent_id, run.parent_id)
        and _fits(which.root_id, run.root_id)
        and (not which.roots_only or run.parent_id is None)
        and (which.created_from_us is None or run.create_us >= which.created_from_us)
        and (which.created_before_us is None or run.create_us < which.created_before_us)
    )


def _fits(wanted: str, found: str | None) -> bool:
    return not wanted or wanted == found
