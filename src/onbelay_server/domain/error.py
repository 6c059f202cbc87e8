"""Every way a request can be refused, as a tree chosen by class and told apart by `reason`.

    DomainError
    ├── Unauthenticated              no, bad, expired or revoked credential
    ├── PermissionDenied             a valid credential that may not do this
    ├── NotFound                     unknown, or not the caller's to know
    ├── InvalidArgument              a field is wrong; `fields` names each
    │   └── RequestIdReused
    ├── AlreadyExists                a name is taken
    ├── FailedPrecondition           the state does not allow it
    ├── Aborted                      somebody else was first; try again
    ├── OutOfRange                   a position outside the kept log
    ├── ResourceExhausted            a quota, a rate or a size
    ├── Unavailable                  not now: retry
    ├── NotBuilt                     a door of the contract whose room is not there yet
    └── Refusal                      a unit of the engine that must not be written
        ├── Lost                     owner or epoch differ: somebody else has the run
        └── Changed                  still ours, but the state differs: decide again

`reason` is the ErrorReason value of the wire contract without its prefix; `metadata` carries what
is dynamic in the text, under snake_case keys. The text is shown to callers: it never holds what
another tenant owns, nor an exception's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class DomainError(Exception):
    """A refusal with a text for people and a reason for programs."""

    reason = "INTERNAL"

    def __init__(
        self,
        text: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason or type(self).reason
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds


class Unauthenticated(DomainError):
    """No, bad, expired or revoked credential. The text never says which."""

    reason = "CREDENTIAL_INVALID"


class PermissionDenied(DomainError):
    """The credential is good but lacks a scope, or is not a person's."""

    reason = "SCOPE_MISSING"


class NotFound(DomainError):
    """Unknown, or owned by somebody whose things the caller may not know of."""

    reason = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request (snake_case, dotted) and what is wrong with it."""

    field: str
    description: str


class InvalidArgument(DomainError):
    """Fields that cannot be accepted whatever the state is."""

    reason = "INVALID_FIELD"

    def __init__(
        self,
        text: str,
        *fields: FieldViolation,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text, reason=reason, metadata=metadata)
        self.fields = fields

    @classmethod
    def of(cls, field: str, description: str, *, reason: str | None = None) -> InvalidArgument:
        """The usual case: one field."""
        return cls(f"{field}: {description}", FieldViolation(field, description), reason=reason)


class RequestIdReused(InvalidArgument):
    """The request_id was used before for a request with another body."""

    reason = "REQUEST_ID_REUSED"


class AlreadyExists(DomainError):
    """A name that must be unique is taken."""

    reason = "NAME_TAKEN"


class FailedPrecondition(DomainError):
    """The state of the thing does not allow it; the caller must do something else first."""

    reason = "RUN_NOT_ACTIVE"


class Aborted(DomainError):
    """Lost a race that can simply be run again."""

    reason = "REQUEST_IN_PROGRESS"


class OutOfRange(DomainError):
    """A position outside the kept log; metadata holds oldest_sequence and last_sequence."""

    reason = "POSITION_OUT_OF_RANGE"


class ResourceExhausted(DomainError):
    """A quota, a rate, a number of things at once, or a size."""

    reason = "QUOTA_EXCEEDED"


class Unavailable(DomainError):
    """The store is away, or the server is draining."""

    reason = "STORE_UNAVAILABLE"


class NotBuilt(DomainError):
    """An RPC, or a field of one, that the contract has and this version does not."""

    reason = "RPC_NOT_BUILT"


class Refusal(DomainError):
    """A unit of the engine that must leave everything untouched. Never reaches a caller."""

    reason = "STALE_OWNER"


class Lost(Refusal):
    """Owner or epoch differ: cancel everything, write nothing."""


class Changed(Refusal):
    """Still mine, but the state differs: read it and decide again."""
