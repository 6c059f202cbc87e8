"""What a credential must allow for each method: the only place where that is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from onbelay_server.domain.principal import Scope

_RUN = "/onbelay.v1.RunService/"
_AGENT = "/onbelay.v1.AgentService/"
_ACCESS = "/onbelay.v1.AccessService/"
_BROKER = "/onbelay.v1.BrokerService/"

# None: any accepted credential. Whose things it then sees is decided by ownership, not here.
SCOPES: Final[Mapping[str, Scope | None]] = {
    _RUN + "StartRun": Scope.RUNS_WRITE,
    _RUN + "GetRun": Scope.RUNS_READ,
    _RUN + "ListRuns": Scope.RUNS_READ,
    _RUN + "UpdateRun": Scope.RUNS_WRITE,
    _RUN + "DeleteRun": Scope.RUNS_WRITE,
    _RUN + "StopRun": Scope.RUNS_WRITE,
    _RUN + "StopRuns": Scope.RUNS_WRITE,
    _RUN + "PauseRun": Scope.RUNS_WRITE,
    _RUN + "ResumeRun": Scope.RUNS_WRITE,
    _RUN + "SendMessage": Scope.RUNS_WRITE,
    _RUN + "WaitRun": Scope.RUNS_READ,
    _RUN + "WatchRun": Scope.RUNS_READ,
    _RUN + "WatchRuns": Scope.RUNS_READ,
    _RUN + "ListRunEvents": Scope.RUNS_READ,
    _RUN + "ListApprovals": Scope.RUNS_READ,
    _RUN + "GetApproval": Scope.RUNS_READ,
    _RUN + "DecideApproval": Scope.APPROVALS_DECIDE,
    _RUN + "ReviseApproval": Scope.APPROVALS_DECIDE,
    _RUN + "UndoApproval": Scope.APPROVALS_DECIDE,
    # An operation can also be completed with its own token, which its handler checks.
    _RUN + "CompleteOperation": None,
    _RUN + "GetOperation": Scope.RUNS_READ,
    _RUN + "ListOperations": Scope.RUNS_READ,
    _RUN + "PutArtifact": Scope.RUNS_WRITE,
    _RUN + "ListArtifacts": Scope.RUNS_READ,
    _RUN + "GetArtifact": Scope.RUNS_READ,
    _RUN + "VerifyAudit": Scope.RUNS_READ,
    _RUN + "ExportAudit": Scope.RUNS_READ,
    _AGENT + "CreateAgent": Scope.AGENTS_WRITE,
    _AGENT + "GetAgent": Scope.AGENTS_READ,
    _AGENT + "ListAgents": Scope.AGENTS_READ,
    _AGENT + "UpdateAgent": Scope.AGENTS_WRITE,
    _AGENT + "DeleteAgent": Scope.AGENTS_WRITE,
    _AGENT + "ListAgentRevisions": Scope.AGENTS_READ,
    _AGENT + "ValidateAgent": Scope.AGENTS_READ,
    _AGENT + "ExportAgent": Scope.AGENTS_READ,
    _AGENT + "ImportAgent": Scope.AGENTS_WRITE,
    _AGENT + "ListBlueprints": Scope.AGENTS_READ,
    _AGENT + "ForkBlueprint": Scope.AGENTS_WRITE,
    _AGENT + "ListTools": Scope.AGENTS_READ,
    _ACCESS + "GetCaller": None,
    _ACCESS + "CreateApiKey": Scope.TENANT_ADMIN,
    _ACCESS + "ListApiKeys": Scope.TENANT_ADMIN,
    _ACCESS + "RotateApiKey": Scope.TENANT_ADMIN,
    _ACCESS + "RevokeApiKey": Scope.TENANT_ADMIN,
}


def scope_of(path: str) -> Scope | None:
    """The scope that `path` needs; None when any accepted credential will do.

    Raises KeyError for a method that nobody has thought about: the server does not start then. The
    broker's methods take the token of one run, which carries no scopes.
    """
    if path.startswith(_BROKER):
        return None
    return SCOPES[path]
