"""What can happen in a run: one immutable payload for each kind of event of the wire contract.

Class and field names are those of the contract, but for times and durations, which are integers in
microseconds: `due_time` is `due_us` here, `effective_at` is `effective_us`, `duration` is
`duration_us`. A field that may be absent on the wire is None then. Of the fields named in a class's
`ONE_OF` at most one is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from onbelay_server.domain.effect import (
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
    ApprovalUndone,
    ApprovalVoided,
    ArtifactSaved,
    BudgetBreached,
    BudgetDimension,
    ChildRunFinished,
    ChildRunStarted,
    OperationCompleted,
    OperationExpired,
    OperationStarted,
    StepError,
    ToolCallFinished,
    ToolCallRequested,
    ToolCallStarted,
    UsageRecorded,
)
from onbelay_server.domain.run import RunError
from onbelay_server.domain.state import LogLevel, RunState, StepKind

__all__ = [
    "KINDS",
    "ApprovalDecided",
    "ApprovalExpired",
    "ApprovalRequested",
    "ApprovalUndone",
    "ApprovalVoided",
    "ArtifactSaved",
    "BudgetBreached",
    "BudgetDimension",
    "ChildRunFinished",
    "ChildRunStarted",
    "CustomReported",
    "EventPayload",
    "LogWritten",
    "MessageCompleted",
    "MessageRead",
    "MessageReceived",
    "MessageRole",
    "OperationCompleted",
    "OperationExpired",
    "OperationStarted",
    "OutputMismatched",
    "ProgressReported",
    "ReasoningDelta",
    "RunFinished",
    "RunStarted",
    "StateChanged",
    "StepCancelled",
    "StepError",
    "StepFinished",
    "StepRestarted",
    "StepStarted",
    "TextDelta",
    "TimerFired",
    "ToolCallFinished",
    "ToolCallRequested",
    "ToolCallStarted",
    "UnknownPayload",
    "UsageRecorded",
]


class MessageRole(StrEnum):
    """Who wrote a message."""

    ASSISTANT = "ASSISTANT"
    USER = "USER"
    SYSTEM = "SYSTEM"


# ---- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The run exists: its first event, committed with StartRun."""

    agent_id: str
    agent_name: str
    agent_revision: int
    started_by: str
    root_run_id: str
    parent_run_id: str = ""
    rerun_of: str = ""
    session_id: str = ""
    input_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """The run's state changed."""

    from_state: RunState
    to_state: RunState
    reason: str = ""
    attempt: int = 0
    changed_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run ended: its last event, committed with the StateChanged before it."""

    state: RunState
    output_json: str | None = None
    output_artifact_id: str = ""
    error: RunError | None = None
    not_stopped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMismatched:
    """The output does not fit the agent's schema."""

    path: str
    message: str
    retries_left: int = 0


# ---- steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A step was asked for; the envelope's step_id is its id."""

    kind: StepKind
    name: str
    digest: str
    stage: int
    attempt: int = 1
    request_json: str = ""
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """A step has its result."""

    ONE_OF: ClassVar = ("result_json", "result_artifact_id", "error")

    stage: int | None = None
    """None when somebody else than the agent's copy recorded it."""
    result_json: str | None = None
    result_artifact_id: str | None = None
    error: StepError | None = None
    duration_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCancelled:
    """A started step is no longer wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRestarted:
    """A started step without a result runs again."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """A durable timer was reached."""

    due_us: int


# ---- what the agent says -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """A piece of text of a message."""

    message_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    """A piece of a model's reasoning."""

    message_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCompleted:
    """A message is whole."""

    message_id: str
    role: MessageRole
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    """Somebody sent a message to the run."""

    message_id: str
    sent_by: str
    text: str = ""
    data_json: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRead:
    """The agent took messages."""

    message_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReported:
    """How far the agent is, in its own unit."""

    done: float | None = None
    total: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWritten:
    """A line of the agent's log."""

    level: LogLevel
    message: str
    data_json: str = ""
    """What belongs to the line; empty when nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomReported:
    """Something of the agent's own that watchers may know."""

    name: str
    data_json: str


@dataclass(frozen=True, slots=True)
class UnknownPayload:
    """An event of a kind that this version does not know."""

    number: int
    """The number of its kind; 0 when the event carries no payload at all."""


EventPayload = (
    RunStarted
    | StateChanged
    | RunFinished
    | OutputMismatched
    | StepStarted
    | StepFinished
    | StepCancelled
    | StepRestarted
    | TimerFired
    | TextDelta
    | ReasoningDelta
    | MessageCompleted
    | MessageReceived
    | MessageRead
    | ProgressReported
    | LogWritten
    | CustomReported
    | ToolCallRequested
    | ToolCallStarted
    | ToolCallFinished
    | ApprovalRequested
    | ApprovalDecided
    | ApprovalUndone
    | ApprovalExpired
    | ApprovalVoided
    | OperationStarted
    | OperationCompleted
    | OperationExpired
    | ChildRunStarted
    | ChildRunFinished
    | UsageRecorded
    | BudgetBreached
    | ArtifactSaved
)

KINDS: dict[str, type[EventPayload]] = {kind.__name__: kind for kind in EventPayload.__args__}
"""Every kind of event by its name."""
