"""Why a call failed, as a tree chosen by code and told apart by `reason`.

    OnbelayError
    ├── Unauthenticated       no, bad, expired or revoked credential
    ├── PermissionDenied      a valid credential that may not do this
    ├── NotFound              unknown, or not the caller's to know
    ├── InvalidArgument       a field is wrong; `fields` names each
    ├── AlreadyExists         a name is taken
    ├── FailedPrecondition    the state does not allow it
    ├── Aborted               somebody else was first
    ├── OutOfRange            a position outside the kept log
    ├── ResourceExhausted     a quota, a rate or a size
    ├── Unavailable           the server cannot be reached or says "not now"
    ├── DeadlineExceeded      it took longer than it was given; whether it happened is unknown
    ├── Unimplemented         this server does not have it
    ├── Cancelled             the call was given up here
    └── InternalError         a bug, there or here

Programs decide by class and `reason`; the text is for people and may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

ERROR_DOMAIN = "onbelay.dev"
_DETAILS_KEY = "grpc-status-details-bin"


class OnbelayError(Exception):
    """A call failed."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """A sentence for people."""
        self.reason = reason
        """The ErrorReason without its prefix. Empty for what gRPC itself raised."""
        self.metadata = dict(metadata or {})
        """What is dynamic in the message, by the keys that ErrorReason names."""
        self.fields = dict(fields or {})
        """Path of each wrong field of the request → what is wrong with it."""
        self.retry_after_seconds = retry_after_seconds
        """How long to wait before the same call may succeed. None: a retry does not help."""

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})" if self.reason else self.message


class Unauthenticated(OnbelayError):
    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(OnbelayError):
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(OnbelayError):
    code = grpc.StatusCode.NOT_FOUND


class InvalidArgument(OnbelayError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class AlreadyExists(OnbelayError):
    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(OnbelayError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(OnbelayError):
    code = grpc.StatusCode.ABORTED


class OutOfRange(OnbelayError):
    code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhausted(OnbelayError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(OnbelayError):
    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(OnbelayError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unimplemented(OnbelayError):
    code = grpc.StatusCode.UNIMPLEMENTED


class Cancelled(OnbelayError):
    code = grpc.StatusCode.CANCELLED


class InternalError(OnbelayError):
    code = grpc.StatusCode.INTERNAL


class ContentMismatch(OnbelayError):
    """Bytes that were downloaded are not those the server described."""

    code = grpc.StatusCode.DATA_LOSS


_BY_CODE: dict[grpc.StatusCode, type[OnbelayError]] = {
    cls.code: cls for cls in OnbelayError.__subclasses__()
}


def error_of(error: grpc.RpcError) -> OnbelayError:
    """The typed error of what a stub raised. Unknown codes become OnbelayError itself."""
    if not isinstance(error, grpc.Call):
        return OnbelayError(str(error))
    code = error.code()
    cls = _BY_CODE.get(code, OnbelayError)
    message = error.details() or code.name.lower().replace("_", " ")
    state = _rich_state(error)
    if state is None:
        return cls(message)
    reason = ""
    metadata: dict[str, str] = {}
    fields: dict[str, str] = {}
    retry_after_seconds: float | None = None
    for detail in state.details:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            if info.domain == ERROR_DOMAIN:
                reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad_request):
            fields |= {each.field: each.description for each in bad_request.field_violations}
        elif detail.Unpack(retry):
            retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return cls(
        state.message or message,
        reason=reason,
        metadata=metadata,
        fields=fields,
        retry_after_seconds=retry_after_seconds,
    )


def _rich_state(error: grpc.Call) -> status_pb2.Status | None:
    """The google.rpc.Status beside the code; None when there is none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                # A proxy cut it: code and message still tell what happened.
                return None
    return None
