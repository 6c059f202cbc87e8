"""Synchronous Python client of the Onbelay service.

    from onbelay_client import connect

    with connect("127.0.0.1:50051", token) as client:
        run = client.runs.start("hello", {"name": "Ada"}).run
        for event in client.runs.watch(run.id).events():
            print(event.sequence, event.WhichOneof("payload"))

Messages and enums are in `onbelay_client.contract`, their JSON in `onbelay_client.protojson`.
"""

from __future__ import annotations

from onbelay_client.client import Client, connect
from onbelay_client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    ContentMismatch,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    OnbelayError,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from onbelay_client.runs import FINAL_STATES, is_final
from onbelay_client.watching import RunWatch

__all__ = [
    "FINAL_STATES",
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Client",
    "ContentMismatch",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InternalError",
    "InvalidArgument",
    "NotFound",
    "OnbelayError",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "RunWatch",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "connect",
    "is_final",
]
