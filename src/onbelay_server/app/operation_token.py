"""The token of one operation: who holds it may complete that operation, and nothing else.

It is derived, not drawn: HMAC-SHA-256 of the operation under a key of this server. So a run that is
replayed after a crash hands out the same token again, though it is stored nowhere but as a hash.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Collection

from onbelay_server.domain.principal import Principal
from onbelay_server.ports.credentials import Credential, CredentialKind, Credentials

_PREFIX = "obl_op_"
_TAG_BYTES = 32


def bearer_of(operation_id: str) -> str:
    """The principal that an operation's token stands for."""
    return f"operation:{operation_id}"


class OperationTokens:
    """Makes and reads the tokens of operations."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the operation token key needs at least 32 bytes")
        self._key = key

    def token(self, operation_id: str, tenant: str) -> str:
        """The operation's token."""
        body = json.dumps([operation_id, tenant], separators=(",", ":")).encode()
        return _PREFIX + base64.urlsafe_b64encode(self._tag(body) + body).decode().rstrip("=")

    def read(self, token: str) -> tuple[str, str] | None:
        """Operation id and tenant of a token that was made here; None for anything else."""
        if not token.startswith(_PREFIX) or len(token) > 512:
            return None
        text = token[len(_PREFIX) :]
        try:
            sealed = base64.b64decode(
                (text + "=" * (-len(text) % 4)).encode("ascii"), altchars=b"-_", validate=True
            )
        except (binascii.Error, UnicodeEncodeError):
            return None
        tag, body = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body)):
            return None
        operation_id, tenant = json.loads(body)
        return operation_id, tenant

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")


class OperationCredentials:
    """Credentials in which an operation's token is one: of a principal that may do nothing but
    complete that operation."""

    def __init__(self, others: Credentials, tokens: OperationTokens) -> None:
        self._others = others
        self._tokens = tokens

    def find(self, token: str) -> Credential | None:
        """As Credentials has it."""
        read = self._tokens.read(token)
        if read is None:
            return self._others.find(token)
        operation_id, tenant = read
        bearer = Principal(
            tenant=tenant, id=bearer_of(operation_id), is_person=False, scopes=frozenset()
        )
        return Credential(principal=bearer, kind=CredentialKind.OPERATION)

    def tenants(self) -> Collection[str]:
        """As Credentials has it."""
        return self._others.tenants()
