"""Who a bearer token belongs to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from onbelay_server.domain.principal import Principal


class CredentialKind(StrEnum):
    """Where a credential comes from."""

    TOKEN = "TOKEN"
    """The operator's tokens file."""
    DEVELOPER = "DEVELOPER"
    """Made by the server for the person who runs it on their own machine."""
    OPERATION = "OPERATION"
    """The token of one operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a valid token says about its bearer."""

    principal: Principal
    kind: CredentialKind
    roles: tuple[str, ...] = ()
    expire_us: int | None = None
    """None: until it is revoked."""


class Credentials(Protocol):
    """The credentials that are valid at this moment.

    A revoked or expired one is gone from here within a few seconds, without a restart.
    """

    def find(self, token: str) -> Credential | None:
        """The credential this token is; None when it is unknown, revoked or expired.

        Found by the token's SHA-256, so the time it takes tells nothing about how much of a guess
        was right. Quick enough to be asked on every call: it waits for nothing.
        """
        ...

    def tenants(self) -> Collection[str]:
        """Every tenant that has a credential."""
        ...
