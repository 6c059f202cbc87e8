"""The people of a test: what they answer, in the order they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from onbelay_agent import values
from onbelay_agent.protocol import CallKind, Failure


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """Somebody who decides the next approval, or answers the next question."""

    says: Literal["approve", "reject", "answer", "expire", "silence"]
    comment: str = ""
    by: str = "tester"
    value: Any = None

    @property
    def silent(self) -> bool:
        """Never decides."""
        return self.says == "silence"

    def decides(self, kind: CallKind) -> bool:
        """Whether this person can be asked a call of `kind`."""
        if self.says in ("expire", "silence"):
            return True
        return (self.says == "answer") == (kind == "QUESTION")

    def decision(self) -> tuple[str | None, Failure | None]:
        """What is recorded: a result or a failure."""
        who = {"by": self.by, "comment": self.comment}
        if self.says == "approve":
            return values.encode(who), None
        if self.says == "answer":
            return values.canonical(self.value), None
        if self.says == "expire":
            return None, Failure(type="Expired", message="nobody decided in time")
        text = self.comment or "rejected"
        return None, Failure(type="Rejected", message=text, data_json=values.encode(who))


def approve(comment: str = "", by: str = "tester") -> Person:
    """Somebody who says yes."""
    return Person("approve", comment, by)


def reject(comment: str = "", by: str = "tester") -> Person:
    """Somebody who says no."""
    return Person("reject", comment, by)


def answer(value: Any, by: str = "tester") -> Person:
    """Somebody who answers a question with a JSON value (or a pydantic model)."""
    return Person("answer", "", by, value)


def expire() -> Person:
    """Nobody decides until the time is up."""
    return Person("expire")


def silence() -> Person:
    """Nobody ever decides; the agent's own timeout may."""
    return Person("silence")
