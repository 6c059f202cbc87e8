"""Credentials that do not change, each under its token's digest."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from onbelay_server.app.credentials import token_digest
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import Credential


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
