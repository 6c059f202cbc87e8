"""What becomes of the operations of a test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from onbelay_agent import values
from onbelay_agent.protocol import Failure


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """How the operations of one name end."""

    says: Literal["completes", "fails", "expires"]
    value: Any = None
    message: str = ""
    reason: str = ""

    def outcome(self, operation_id: str) -> tuple[str | None, Failure | None]:
        """What is recorded: a result or a failure."""
        if self.says == "completes":
            return values.canonical(self.value), None
        data = {"operation_id": operation_id, "reason": self.reason}
        failure = Failure(type="OperationFailed", message=self.message, data_json=json.dumps(data))
        return None, failure


def completes(result: Any = None) -> Completion:
    """Completed with a JSON value (or a pydantic model)."""
    return Completion("completes", result)


def fails(message: str = "it failed", reason: str = "") -> Completion:
    """Completed with an error."""
    return Completion("fails", message=message, reason=reason)


def expires() -> Completion:
    """Nobody completes it in time."""
    return Completion("expires", message="it was not completed in time", reason="EXPIRED")
