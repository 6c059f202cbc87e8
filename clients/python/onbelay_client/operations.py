"""Operations: what runs began and somebody else finishes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from onbelay.v1.run_service_pb2_grpc import RunServiceStub
from onbelay_client import contract as pb
from onbelay_client.calling import Caller, new_request_id
from onbelay_client.protojson import json_text


class Operations:
    """The part of RunService that is about operations. Every method gives the reply as it came."""

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._stub = RunServiceStub(channel)
        self._caller = caller

    def list(
        self,
        run_id: str = "",
        *,
        states: Sequence[pb.OperationState.ValueType] = (),
        page_size: int = 0,
        page_token: str = "",
    ) -> pb.ListOperationsResponse:
        """A page of operations, newest first; conditions are joined by "and"."""
        request = pb.ListOperationsRequest(
            run_id=run_id, states=states, page_size=page_size, page_token=page_token
        )
        return self._caller.call(self._stub.ListOperations, request)

    def get(self, operation_id: str) -> pb.GetOperationResponse:
        """One operation."""
        return self._caller.call(
            self._stub.GetOperation, pb.GetOperationRequest(operation_id=operation_id)
        )

    def complete(
        self,
        operation_id: str,
        result: Any = None,
        *,
        result_json: str | None = None,
        token: str = "",
        request_id: str | None = None,
    ) -> pb.CompleteOperationResponse:
        """Finish an operation with a value, or with JSON text.

        The same result again is harmless; another one raises FailedPrecondition
        (OPERATION_CLOSED). `token` is the operation's own, where the client's credential is not
        that and may not complete operations.
        """
        return self._complete(
            pb.CompleteOperationRequest(
                operation_id=operation_id,
                result_json=json_text(result) if result_json is None else result_json,
                token=token,
                request_id=request_id or new_request_id(),
            )
        )

    def fail(
        self,
        operation_id: str,
        message: str,
        *,
        reason: str = "",
        token: str = "",
        request_id: str | None = None,
    ) -> pb.CompleteOperationResponse:
        """Finish an operation with an error; the agent gets the message and the short code."""
        return self._complete(
            pb.CompleteOperationRequest(
                operation_id=operation_id,
                error=pb.OperationError(message=message, reason=reason),
                token=token,
                request_id=request_id or new_request_id(),
            )
        )

    def _complete(self, request: pb.CompleteOperationRequest) -> pb.CompleteOperationResponse:
        return self._caller.call(self._stub.CompleteOperation, request)
