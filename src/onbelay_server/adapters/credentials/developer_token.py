"""The credential of the person who runs the server on their own machine."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from onbelay_server.adapters.credentials.credential_book import CredentialBook
from onbelay_server.adapters.credentials.secret_file import load_secret
from onbelay_server.app.credentials import token_digest
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import Credential, CredentialKind

DEVELOPER_TENANT: Final = "default"


def load_developer_token(path: Path) -> str:
    """The developer's token kept in `path`, made on first use. Raises SecretFileError."""
    return load_secret(path, lambda: f"obl_dev_{secrets.token_urlsafe(32)}")


def developer_credentials(token: str, clock: Clock) -> CredentialBook:
    """The one credential of a server that was given no tokens file. It may do everything, running
    its own code included: it is the same person."""
    developer = Principal(
        tenant=DEVELOPER_TENANT, id="user:developer", is_person=True, scopes=frozenset(Scope)
    )
    credential = Credential(
        principal=developer, kind=CredentialKind.DEVELOPER, roles=("admin",), expire_us=None
    )
    return CredentialBook([(token_digest(token), credential)], clock)
