"""Operations between the domain and the wire."""

from __future__ import annotations

from onbelay.v1 import operation_pb2, operation_request_pb2, step_pb2
from onbelay_server.domain.effect import StepError
from onbelay_server.domain.error import InvalidArgument
from onbelay_server.domain.operation import Operation, OperationOutcome, OperationState
from onbelay_server.ports.store import OperationFilter
from onbelay_server.transport.grpc.wire import (
    parse_json,
    to_optional_timestamp,
    to_timestamp,
    value_json,
)

MAX_RESULT_BYTES = 262_144
FAILED = "OperationFailed"
"""The error's type, as the author's package knows it."""


def to_operation(operation: Operation) -> operation_pb2.Operation:
    """The operation as its readers see it: everything but its token."""
    message = operation_pb2.Operation(
        id=operation.id,
        run_id=operation.run_id,
        step_id=operation.step_id,
        name=operation.name,
        state=operation_pb2.OperationState.Value(f"OPERATION_STATE_{operation.state.value}"),
        result_schema_json=operation.result_schema_json,
        create_time=to_timestamp(operation.create_us),
        expire_time=to_optional_timestamp(operation.expire_us),
        complete_time=to_optional_timestamp(operation.complete_us),
        completed_by=operation.completed_by,
    )
    if operation.error is not None:
        error = operation.error
        message.error.CopyFrom(
            step_pb2.StepError(
                type=error.type,
                message=error.message,
                reason=error.reason,
                data_json=error.data_json,
            )
        )
    elif operation.result_json is not None:
        message.result_json = operation.result_json
    return message


def outcome_of(request: operation_request_pb2.CompleteOperationRequest) -> OperationOutcome:
    """How the operation ended. Raises InvalidArgument for a result that is no JSON."""
    kind = request.WhichOneof("outcome")
    if kind == "error":
        error = StepError(type=FAILED, message=request.error.message, reason=request.error.reason)
        return OperationOutcome(error=error)
    if kind == "result":
        text = value_json(request.result, "result")
        parse_json(text, "result", max_bytes=MAX_RESULT_BYTES)
    elif kind == "result_json":
        text = request.result_json
        parse_json(text, "result_json", max_bytes=MAX_RESULT_BYTES)
    else:
        raise InvalidArgument.of("outcome", "is required")
    return OperationOutcome(result_json=text)


def filter_of(request: operation_request_pb2.ListOperationsRequest) -> OperationFilter:
    """Which operations the request is about."""
    return OperationFilter(
        run_id=request.run_id,
        states=[
            OperationState(
                operation_pb2.OperationState.Name(number).removeprefix("OPERATION_STATE_")
            )
            for number in request.states
        ],
    )
