"""Lists in pages: how much one holds, and the tokens that continue them."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from onbelay_server.domain.error import FieldViolation, InvalidArgument
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.store import Place

M = TypeVar("M", bound=Message)

MAX_PAGE_BYTES = 1_000_000
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50

_TAG_BYTES = 16


def fitting(messages: Iterable[M]) -> list[M]:
    """The first messages that together stay below 1 MB, and at least one if there is any."""
    page: list[M] = []
    used_bytes = 0
    for message in messages:
        used_bytes += message.ByteSize()
        if used_bytes > MAX_PAGE_BYTES and page:
            break
        page.append(message)
    return page


def page_size(asked: int) -> int:
    """How many rows a page may hold: 50 when nothing was asked, never more than 1,000."""
    return min(asked, MAX_PAGE_SIZE) if asked > 0 else DEFAULT_PAGE_SIZE


class PageTokens:
    """Makes and reads page tokens: opaque, signed, good for one caller and one query only.

    The query is the whole list request but its page size, so a token of another method, filter or
    caller is refused like one that was tampered with. `key` (at least 32 bytes) stays the same over
    restarts, else open lists break.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the page token key needs at least 32 bytes")
        self._key = key

    def issue(self, request: Message, caller: Principal, place: Place) -> str:
        """A token that continues `request` behind `place`."""
        body = json.dumps([place.create_us, place.id], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._tag(body, request, caller) + body).decode()

    def read(
        self, request: Message, caller: Principal, *, field: str = "page_token"
    ) -> Place | None:
        """Where the request's page begins; None for the first. Raises InvalidArgument
        (PAGE_TOKEN_INVALID) for a token that was not issued for this caller and query."""
        token: str = getattr(request, field)
        if not token:
            return None
        try:
            sealed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise _foreign_token(field) from None
        tag, body = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body, request, caller)):
            raise _foreign_token(field)
        create_us, row_id = json.loads(body)
        return Place(create_us=create_us, id=row_id)

    def _tag(self, body: bytes, request: Message, caller: Principal) -> bytes:
        query = type(request)()
        query.CopyFrom(request)
        query.DiscardUnknownFields()
        for name in ("page_token", "page_size"):
            query.ClearField(name)
        parts = (
            request.DESCRIPTOR.full_name.encode(),
            caller.tenant.encode(),
            caller.id.encode(),
            query.SerializeToString(deterministic=True),
            body,
        )
        # Lengths between the parts: no two different tuples may sign the same bytes.
        signed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, signed, "sha256")[:_TAG_BYTES]


def _foreign_token(field: str) -> InvalidArgument:
    description = "is not a token of this query and caller"
    return InvalidArgument(
        f"{field}: {description}",
        FieldViolation(field, description),
        reason="PAGE_TOKEN_INVALID",
    )
