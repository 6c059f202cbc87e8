"""Tokens by their digests: what a role allows, and which credential a token is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from onbelay_server.domain.principal import Scope
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import Credential

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


class CredentialBook:
    """A fixed set of credentials, each under its token's digest."""

    def __init__(self, entries: Iterable[tuple[str, Credential]], clock: Clock) -> None:
        """Raises ValueError when two entries share a digest: one token cannot be two people."""
        self._clock = clock
        self._by_digest: dict[str, Credential] = {}
        for digest, credential in entries:
            if digest in self._by_digest:
                raise ValueError(f"the token with sha256 {digest[:12]}… is listed twice")
            self._by_digest[digest] = credential

    def find(self, token: str) -> Credential | None:
        """See `Credentials.find`."""
        found = self._by_digest.get(token_digest(token))
        if found is None or found.expire_us is None or self._clock.now_us() < found.expire_us:
            return found
        return None

    def tenants(self) -> Collection[str]:
        """See `Credentials.tenants`."""
        return {credential.principal.tenant for credential in self._by_digest.values()}
