"""The request_id of a call, as its use case takes it."""

from __future__ import annotations

from google.protobuf.message import Message

from onbelay_server.app.idempotency import Idempotency
from onbelay_server.domain.request import RequestKey
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.wire import request_digest


def idempotency(request: Message, call: Call) -> Idempotency | None:
    """What makes a repeat of this call harmless; None for a call without a request_id."""
    request_id: str = getattr(request, "request_id")  # noqa: B009 - each request has its own class
    if not request_id:
        return None
    key = RequestKey(call.caller.tenant, call.caller.id, call.method, request_id)
    return Idempotency(key, request_digest(request))
