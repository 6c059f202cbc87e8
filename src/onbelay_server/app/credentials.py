"""What a role allows, and the digest under which a token is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from onbelay_server.domain.principal import Scope

_VIEWER: Final = frozenset({Scope.RUNS_READ, Scope.AGENTS_READ})
_APPROVER: Final = _VIEWER | {Scope.APPROVALS_DECIDE}
_DEVELOPER: Final = _APPROVER | {
    Scope.RUNS_WRITE,
    Scope.AGENTS_WRITE,
    Scope.OPERATIONS_COMPLETE,
}

ALL_BUT_CODE: Final = frozenset(Scope) - {Scope.AGENTS_RUN_CODE}
"""What `*` means. Running code of one's own on the server is never part of a bundle."""

ROLES: Final[Mapping[str, frozenset[Scope]]] = MappingProxyType(
    {
        "viewer": _VIEWER,
        "approver": _APPROVER,
        "developer": _DEVELOPER,
        "admin": ALL_BUT_CODE,
    }
)


def token_digest(token: str) -> str:
    """The lower-case hex SHA-256 under which a token is kept. A fast hash is right here: tokens are
    random, so there is nothing to guess."""
    return hashlib.sha256(token.encode()).hexdigest()
