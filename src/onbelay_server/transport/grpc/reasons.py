"""Every reason a call can be refused for, with its code; `docs/errors.md` says what each means."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import grpc

_BY_CODE: Final[Mapping[grpc.StatusCode, tuple[str, ...]]] = {
    grpc.StatusCode.UNAUTHENTICATED: (
        "CREDENTIAL_MISSING",
        "CREDENTIAL_INVALID",
    ),
    grpc.StatusCode.PERMISSION_DENIED: (
        "SCOPE_MISSING",
        "NOT_A_PERSON",
        "RISK_NOT_ALLOWED",
        "NOT_AN_APPROVER",
        "TOOL_NOT_ALLOWED",
        "AGENT_NOT_ALLOWED",
        "OPERATION_TOKEN_INVALID",
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (
        "MALFORMED_REQUEST",
        "INVALID_FIELD",
        "INVALID_JSON",
        "INPUT_MISMATCH",
        "PAGE_TOKEN_INVALID",
        "REQUEST_ID_REUSED",
        "DOCUMENT_INVALID",
        "ANSWER_MISMATCH",
    ),
    grpc.StatusCode.UNIMPLEMENTED: (
        "METHOD_UNKNOWN",
        "RPC_NOT_BUILT",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        "RATE_LIMITED",
        "QUOTA_EXCEEDED",
        "TOO_MANY_STREAMS",
        "PAYLOAD_TOO_LARGE",
        "SESSION_QUEUE_FULL",
        "BUDGET_EXCEEDED",
        "STORE_FULL",
    ),
    grpc.StatusCode.UNAVAILABLE: (
        "STORE_UNAVAILABLE",
        "DRAINING",
        "STALE_OWNER",
    ),
    grpc.StatusCode.INTERNAL: ("INTERNAL",),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("SERVER_DEADLINE",),
    grpc.StatusCode.NOT_FOUND: ("NOT_FOUND",),
    grpc.StatusCode.ALREADY_EXISTS: ("NAME_TAKEN",),
    grpc.StatusCode.ABORTED: (
        "REQUEST_IN_PROGRESS",
        "ETAG_MISMATCH",
    ),
    grpc.StatusCode.FAILED_PRECONDITION: (
        "RUN_NOT_ACTIVE",
        "RUN_NOT_FINISHED",
        "RUN_NOT_PAUSED",
        "SESSION_BUSY",
        "MESSAGES_NOT_ACCEPTED",
        "AGENT_NOT_STARTABLE",
        "AGENT_READ_ONLY",
        "AGENT_IN_USE",
        "HASH_MISMATCH",
        "APPROVAL_EXPIRED",
        "ALREADY_DECIDED",
        "APPROVAL_NOT_PENDING",
        "UNDO_TOO_LATE",
        "DECISION_NOT_ALLOWED",
        "SCOPE_TOO_WIDE",
        "OPERATION_CLOSED",
        "UPLOAD_OFFSET_MISMATCH",
        "UPLOAD_CLOSED",
        "CONTENT_MISMATCH",
        "CONTENT_HOLDS_SECRET",
        "STEP_MISMATCH",
    ),
    grpc.StatusCode.OUT_OF_RANGE: (
        "POSITION_OUT_OF_RANGE",
        "OFFSET_OUT_OF_RANGE",
    ),
}

REASONS: Final[Mapping[str, grpc.StatusCode]] = MappingProxyType(
    {reason: code for code, reasons in _BY_CODE.items() for reason in reasons}
)
"""ErrorReason values without their prefix."""
