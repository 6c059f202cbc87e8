"""Who a bearer token belongs to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from onbelay_server.domain.principal import Principal


class Credentials(Protocol):
    """The credentials that are valid at this moment.

    A revoked or expired one is gone from here within a few seconds, without a restart.
    """

    def principal(self, token: str) -> Principal | None:
        """Whose token this is; None when it is unknown, revoked or expired.

        Found by the token's SHA-256, so the time it takes tells nothing about how much of a guess
        was right. Quick enough to be asked on every call: it waits for nothing.
        """
        ...

    def tenants(self) -> Collection[str]:
        """Every tenant that has a credential."""
        ...
