"""RunService: what runs began and others finish."""

from __future__ import annotations

from onbelay.v1 import operation_request_pb2 as pb
from onbelay_server.app.operation_token import bearer_of
from onbelay_server.app.operations import Completion, Operations
from onbelay_server.domain.error import PermissionDenied
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import CredentialKind
from onbelay_server.ports.store import Place
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.operation_wire import filter_of, outcome_of, to_operation
from onbelay_server.transport.grpc.page_token import PageTokens, fitting, page_size
from onbelay_server.transport.grpc.request_id import idempotency
from onbelay_server.transport.grpc.wire import to_timestamp


class OperationCalls:
    """Answers CompleteOperation, GetOperation and ListOperations."""

    def __init__(self, operations: Operations, tokens: PageTokens, clock: Clock) -> None:
        self._operations = operations
        self._tokens = tokens
        self._clock = clock

    async def complete_operation(
        self, request: pb.CompleteOperationRequest, call: Call
    ) -> pb.CompleteOperationResponse:
        _check_bearer(request.operation_id, call)
        order = Completion(
            operation_id=request.operation_id,
            outcome=outcome_of(request),
            token=request.token,
            idempotency=idempotency(request, call),
        )
        operation = await self._operations.complete(call.caller, order)
        return pb.CompleteOperationResponse(operation=to_operation(operation))

    async def get_operation(
        self, request: pb.GetOperationRequest, call: Call
    ) -> pb.GetOperationResponse:
        operation = await self._operations.get(call.caller, request.operation_id)
        return pb.GetOperationResponse(
            operation=to_operation(operation), server_time=to_timestamp(self._clock.now_us())
        )

    async def list_operations(
        self, request: pb.ListOperationsRequest, call: Call
    ) -> pb.ListOperationsResponse:
        limit = page_size(request.page_size)
        found = await self._operations.list(
            call.caller,
            filter_of(request),
            after=self._tokens.read(request, call.caller),
            limit=limit + 1,
        )
        page = fitting(to_operation(operation) for operation in found[:limit])
        response = pb.ListOperationsResponse(
            operations=page, server_time=to_timestamp(self._clock.now_us())
        )
        shown = len(page)
        if shown < len(found):
            last = found[shown - 1]
            place = Place(last.create_us, last.id)
            response.next_page_token = self._tokens.issue(request, call.caller, place)
        return response


def _check_bearer(operation_id: str, call: Call) -> None:
    """A token of one operation says nothing about another, not even whether there is one."""
    credential = call.credential
    if credential is None or credential.kind is not CredentialKind.OPERATION:
        return
    if call.caller.id != bearer_of(operation_id):
        raise PermissionDenied(
            "the token is not that of this operation", reason="OPERATION_TOKEN_INVALID"
        )
