"""How refusals look on the wire: one table of codes and one status message.

The reasons are those of the contract's enum ErrorReason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    RetryInfo,
)

from onbelay_server.domain import error
from onbelay_server.domain.error import DomainError, InvalidArgument
from onbelay_server.transport.grpc.wire import to_duration

ERROR_DOMAIN: Final = "onbelay.dev"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
INTERNAL_TEXT: Final = "The server failed; it logged the details under the error id."

_Code = grpc.StatusCode

# Clients drop trailers past 8 kB; base64 makes a third more of what is counted here.
_MAX_DETAILS_BYTES = 4_000
_MAX_TEXT = 500
_MAX_FIELD = 200
_DEFAULT_RETRY_SECONDS = 1.0


class ServerDeadline(DomainError):
    """The server's own limit for a unary call passed; whether a change was made is unknown."""

    reason = "SERVER_DEADLINE"


class InternalFault(DomainError):
    """A bug, as the caller may know of it: an id to ask about."""

    reason = "INTERNAL"

    def __init__(self, error_id: str) -> None:
        super().__init__(INTERNAL_TEXT, metadata={"error_id": error_id})


# By class, nearest ancestor first: a new kind of refusal is found by what it derives from.
CODES: Final[Mapping[type[DomainError], grpc.StatusCode]] = {
    error.Unauthenticated: _Code.UNAUTHENTICATED,
    error.PermissionDenied: _Code.PERMISSION_DENIED,
    error.NotFound: _Code.NOT_FOUND,
    error.InvalidArgument: _Code.INVALID_ARGUMENT,
    error.AlreadyExists: _Code.ALREADY_EXISTS,
    error.FailedPrecondition: _Code.FAILED_PRECONDITION,
    error.Aborted: _Code.ABORTED,
    error.OutOfRange: _Code.OUT_OF_RANGE,
    error.ResourceExhausted: _Code.RESOURCE_EXHAUSTED,
    error.Unavailable: _Code.UNAVAILABLE,
    error.NotBuilt: _Code.UNIMPLEMENTED,
    error.Refusal: _Code.UNAVAILABLE,
    ServerDeadline: _Code.DEADLINE_EXCEEDED,
    DomainError: _Code.INTERNAL,
}

_RETRIED: Final = frozenset({_Code.UNAVAILABLE})
_RETRIED_REASONS: Final = frozenset({"REQUEST_IN_PROGRESS", "RATE_LIMITED"})


@dataclass(frozen=True, slots=True)
class WireError:
    """What is sent for a refusal."""

    code: grpc.StatusCode
    text: str
    reason: str
    details: bytes
    """The encoded google.rpc.Status for the trailer `grpc-status-details-bin`."""


def code_of(refusal: DomainError) -> grpc.StatusCode:
    """The code of the nearest class in the table; a bare DomainError is a bug and INTERNAL."""
    return next(CODES[kind] for kind in type(refusal).__mro__ if kind in CODES)


def to_wire(refusal: DomainError) -> WireError:
    """The refusal as a status with exactly one ErrorInfo, a BadRequest for wrong fields and a
    RetryInfo where trying again helps. Long texts are cut so that no client drops the trailer."""
    code = code_of(refusal)
    text = _cut(refusal.text, _MAX_TEXT)
    status = status_pb2.Status(code=code.value[0], message=text)
    metadata = {key: _cut(value, _MAX_FIELD) for key, value in refusal.metadata.items()}
    _attach(status, ErrorInfo(reason=refusal.reason, domain=ERROR_DOMAIN, metadata=metadata))
    retry_seconds = refusal.retry_after_seconds
    if retry_seconds is None and (code in _RETRIED or refusal.reason in _RETRIED_REASONS):
        retry_seconds = _DEFAULT_RETRY_SECONDS
    if retry_seconds is not None:
        _attach(status, RetryInfo(retry_delay=to_duration(retry_seconds)))
    if isinstance(refusal, InvalidArgument) and refusal.fields:
        _attach(status, _bad_request(refusal, _MAX_DETAILS_BYTES - status.ByteSize()))
    return WireError(code, text, refusal.reason, status.SerializeToString())


def _bad_request(refusal: InvalidArgument, room_bytes: int) -> BadRequest:
    found = BadRequest()
    for violation in refusal.fields:
        entry = BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_FIELD),
            description=_cut(violation.description, _MAX_FIELD),
        )
        room_bytes -= entry.ByteSize() + 8
        if found.field_violations and room_bytes < 0:
            break
        found.field_violations.append(entry)
    return found


def _attach(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
