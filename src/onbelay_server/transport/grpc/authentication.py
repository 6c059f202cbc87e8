"""The bearer token of a call, and whose it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from onbelay_server.domain.error import Unauthenticated
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.credentials import Credential, Credentials

# One text for every kind of bad credential: a guess must not learn what was wrong with it.
_TEXT: Final = "A valid credential is required: authorization: Bearer <key or token>."
_BEARER: Final = re.compile(r"[Bb]earer ([\x21-\x7e]{1,1024})")


@dataclass(frozen=True, slots=True)
class Bearer:
    """An accepted credential and the token it came as, to look up again while a stream is open."""

    credential: Credential
    token: str = field(repr=False)

    @property
    def caller(self) -> Principal:
        return self.credential.principal


def authenticate(
    metadata: Iterable[tuple[str, str | bytes]] | None, credentials: Credentials
) -> Bearer:
    """The caller of a call with this metadata. Raises Unauthenticated.

    Exactly one `authorization` is accepted: with two of them, proxies and servers disagree on which
    one counts.
    """
    found = [value for key, value in metadata or () if key == "authorization"]
    match = _BEARER.fullmatch(found[0]) if len(found) == 1 and isinstance(found[0], str) else None
    if match is None:
        raise Unauthenticated(_TEXT, reason="CREDENTIAL_MISSING")
    token = match.group(1)
    credential = credentials.find(token)
    if credential is None:
        raise revoked()
    return Bearer(credential, token)


def revoked() -> Unauthenticated:
    """The refusal of a credential that is not, or no longer, valid."""
    return Unauthenticated(_TEXT)
