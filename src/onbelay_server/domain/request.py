"""Requests already answered: what makes a repeated call harmless."""

from __future__ import annotations

from dataclasses import dataclass

from onbelay_server.domain.error import RequestIdReused


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request_id counts per caller and method."""

    tenant: str
    principal: str
    method: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A remembered request: its body's hash, and what it made."""

    key: RequestKey
    body_sha256: str
    """Over the RFC 8785 form of the request without its request_id."""
    result_id: str
    """The id of what it made or changed; the answer is read anew from it."""
    create_us: int

    def match(self, body_sha256: str) -> str:
        """The id of the first answer. Raises RequestIdReused for another body."""
        if self.body_sha256 != body_sha256:
            raise RequestIdReused(
                "request_id was used before for a different request",
                metadata={"request_id": self.key.request_id},
            )
        return self.result_id
