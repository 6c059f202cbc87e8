"""What an agent is told of a child run or an operation that came to nothing."""

from __future__ import annotations

import json

from onbelay_agent.protocol import Failure
from onbelay_server.domain.event import StepError
from onbelay_server.domain.run import RunError
from onbelay_server.domain.state import RunState


def child_failure(child_run_id: str, state: RunState, error: RunError | None) -> Failure:
    """What the agent is told of a child run that did not succeed."""
    data = {
        "child_run_id": child_run_id,
        "state": state.value,
        "reason": error.reason.value if error is not None else "",
    }
    message = error.message if error is not None else f"the child run is {state}"
    return Failure(type="ChildRunFailed", message=message, data_json=json.dumps(data))


def operation_failure(operation_id: str, error: StepError) -> Failure:
    """What the agent is told of an operation that failed outside."""
    data = {"operation_id": operation_id, "reason": error.reason}
    return Failure(type="OperationFailed", message=error.message, data_json=json.dumps(data))


def operation_expired(operation_id: str) -> Failure:
    """What the agent is told of an operation that nobody completed in time."""
    data = {"operation_id": operation_id, "reason": "EXPIRED"}
    return Failure(
        type="OperationFailed", message="it was not completed in time", data_json=json.dumps(data)
    )


def step_error(failure: Failure) -> StepError:
    """The same, as the log records it."""
    return StepError(type=failure.type, message=failure.message, data_json=failure.data_json)
