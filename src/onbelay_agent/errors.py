"""What a context call can raise, and what the package refuses.

Exception
├── AgentCallError            a context call did not give its result
│   ├── ToolDenied            policy or a person refused the tool call
│   ├── Rejected              a person said no (`comment`, `by`)
│   ├── Expired               nobody decided in time
│   ├── ToolFailed            the tool ran and failed
│   ├── StepFailed            a step's function failed (`step`, `error_type`)
│   ├── InvalidAnswer         a person's answer does not fit the type asked for
│   ├── ArtifactFailed        a file is not there or could not be kept
│   ├── ModelFailed           a model turn failed
│   ├── BudgetExceeded        the run's budget does not allow the call
│   ├── ChildRunFailed        a child run ended without a result (`run_id`, `state`, `reason`)
│   └── OperationFailed       what finishes outside failed, or did not in time (`expired`)
├── RefusedCall               agent code did what belongs in a step, or used the API wrongly
├── ValueNotStorable          a value cannot be encoded, or does not fit its type
├── InvalidInput              the run's input does not fit the agent's signature
├── InvalidDefinition         a decorated function cannot be an agent or a tool
└── AgentNotLoaded            `module:function` does not lead to an agent
BaseException
└── RunEnding                 this copy of the run is ending; let it pass
    ├── RunStopped            the run was stopped
    └── RunSuspended          the run waits without this copy and goes on from its log
"""

from __future__ import annotations

import json
from typing import Any

from onbelay_agent.protocol import Failure


class AgentCallError(Exception):
    """A context call did not give its result. `data` is what was said beyond the text."""

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def _detail(self, key: str) -> str:
        value = self.data.get(key) if isinstance(self.data, dict) else None
        return value if isinstance(value, str) else ""


class ToolDenied(AgentCallError):
    """Policy or a person refused the tool call; nothing of it happened."""


class Rejected(AgentCallError):
    """A person said no."""

    @property
    def comment(self) -> str:
        """The person's own words, possibly empty."""
        return self._detail("comment")

    @property
    def by(self) -> str:
        """Who decided."""
        return self._detail("by")


class Expired(AgentCallError):
    """Nobody decided in time."""


class ToolFailed(AgentCallError):
    """The tool ran and failed."""


class StepFailed(AgentCallError):
    """A step's function raised, timed out, or returned what cannot be stored."""

    @property
    def step(self) -> str:
        """The step's name."""
        return self._detail("step")

    @property
    def error_type(self) -> str:
        """Class name of what the function raised."""
        return self._detail("error_type")


class InvalidAnswer(AgentCallError):
    """A person's answer does not fit the type that was asked for."""


class ArtifactFailed(AgentCallError):
    """A file is not there, or could not be kept."""


class ModelFailed(AgentCallError):
    """A model turn failed."""


class BudgetExceeded(AgentCallError):
    """The run's budget does not allow the call."""


class ChildRunFailed(AgentCallError):
    """A child run ended without a result, or could not be started."""

    @property
    def run_id(self) -> str:
        """The child run; empty when none was started."""
        return self._detail("child_run_id")

    @property
    def state(self) -> str:
        """The state it ended in: FAILED, STOPPED …; empty when none was started."""
        return self._detail("state")

    @property
    def reason(self) -> str:
        """Why it failed, as its own error names it; possibly empty."""
        return self._detail("reason")


class OperationFailed(AgentCallError):
    """What finishes outside the run reported an error, or nothing in time."""

    @property
    def operation_id(self) -> str:
        """The operation."""
        return self._detail("operation_id")

    @property
    def reason(self) -> str:
        """What whoever completed it gave as the reason; `EXPIRED` when nobody did in time."""
        return self._detail("reason")

    @property
    def expired(self) -> bool:
        """Whether nobody completed it in time."""
        return self.reason == "EXPIRED"


class RefusedCall(RuntimeError):
    """Agent code did what belongs in a step, or used a context call where it cannot be used."""


class ValueNotStorable(ValueError):
    """A value cannot be encoded as JSON, or stored JSON does not fit the type asked for."""


class InvalidInput(ValueError):
    """The run's input does not fit the agent's signature. `field` is its dotted path, or empty."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class InvalidDefinition(TypeError):
    """A decorated function cannot be an agent or a tool."""


class AgentNotLoaded(ImportError):
    """`module:function` or `path/file.py:function` does not lead to an agent."""


class RunEnding(BaseException):
    """This copy of the run is ending. Whatever the agent's code does about it changes nothing."""


class RunStopped(RunEnding):
    """The run was stopped."""


class RunSuspended(RunEnding):
    """The run waits without this copy; it goes on from its log."""


_BY_NAME: dict[str, type[AgentCallError]] = {
    kind.__name__: kind
    for kind in (
        ToolDenied,
        Rejected,
        Expired,
        ToolFailed,
        StepFailed,
        InvalidAnswer,
        ArtifactFailed,
        ModelFailed,
        BudgetExceeded,
        ChildRunFailed,
        OperationFailed,
    )
}


def raised_by(failure: Failure) -> AgentCallError:
    """The error a recorded failure raises; an unknown type raises plain AgentCallError."""
    data = json.loads(failure.data_json)
    kind = _BY_NAME.get(failure.type)
    if kind is None:
        return AgentCallError(f"{failure.type}: {failure.message}", data)
    return kind(failure.message, data)


def described(error: BaseException) -> tuple[str, str]:
    """Class name and text of whatever an author's code raised, in characters that can be stored.

    Never raises: an exception's own `__str__` may."""
    name = type(error).__name__[:200]
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - it is agent code, and may raise anything
        return name, "(its text cannot be read)"
    # By way of str's own method: `__str__` may give a subclass that has another.
    return name, str.encode(text, "utf-8", "replace").decode()
