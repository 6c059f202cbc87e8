"""Who sees and decides what, said in Python as the SQL queries say it."""

from __future__ import annotations

from onbelay_server.domain.approval import Approval
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.run import Run


def sees(viewer: Viewer, run: Run) -> bool:
    """The viewer may read the run."""
    return viewer.sees(tenant=run.tenant, starter=run.starter, agent_owner=run.agent_owner)


def decides(principal: str, approval: Approval) -> bool:
    """The principal is a decider of the approval: one listed, or the starter where nobody is."""
    return principal in (approval.approvers or (approval.starter,))
