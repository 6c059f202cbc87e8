"""What can happen in a run through the service: tool calls, decisions, operations, children, use.

These are payloads of events; `onbelay_server.domain.event` names all of them and says the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from onbelay_server.domain.run import RunError
from onbelay_server.domain.state import ApprovalKind, Decision, Risk, RunState


class BudgetDimension(StrEnum):
    """What a budget limits."""

    COST = "COST"
    MODEL_CALLS = "MODEL_CALLS"
    TOOL_CALLS = "TOOL_CALLS"
    INPUT_TOKENS = "INPUT_TOKENS"
    OUTPUT_TOKENS = "OUTPUT_TOKENS"
    CHILD_RUNS = "CHILD_RUNS"
    ACTIVE_DURATION = "ACTIVE_DURATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepError:
    """Why a step, a tool call or an operation failed."""

    type: str
    """The error's class as the author's package knows it, such as `ToolFailed`."""
    message: str
    reason: str = ""
    data_json: str = ""


# ---- tools ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallRequested:
    """The agent asked for a tool call; nothing was sent yet."""

    call_id: str
    tool: str
    risk: Risk
    arguments_json: str
    arguments_sha256: str
    tool_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """A tool call passed every gate and is about to be sent."""

    call_id: str
    tool: str
    arguments_sha256: str
    idempotency_key: str
    approval_id: str = ""
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallFinished:
    """A tool call ended."""

    ONE_OF: ClassVar = ("result_json", "result_artifact_id", "error")

    call_id: str
    tool: str
    result_json: str | None = None
    result_artifact_id: str | None = None
    error: StepError | None = None
    duration_us: int | None = None


# ---- people --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequested:
    """A person is asked."""

    approval_id: str
    kind: ApprovalKind
    title: str
    body_sha256: str
    expire_us: int | None = None
    replaces: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalDecided:
    """A person decided."""

    approval_id: str
    decision: Decision
    decided_by: str
    comment: str = ""
    answer_json: str = ""
    effective_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalUndone:
    """An approval was taken back before it took effect."""

    approval_id: str
    undone_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalExpired:
    """Nobody decided in time, or what was approved was not used in time."""

    approval_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalVoided:
    """An approval lost its object."""

    approval_id: str
    reason: str
    superseded_by: str = ""


# ---- what happens elsewhere ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStarted:
    """Something that finishes outside was begun."""

    operation_id: str
    name: str
    expire_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationCompleted:
    """An operation was completed."""

    ONE_OF: ClassVar = ("result_json", "error")

    operation_id: str
    result_json: str | None = None
    error: StepError | None = None
    completed_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationExpired:
    """An operation was not completed in time."""

    operation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRunStarted:
    """A child run was started."""

    child_run_id: str
    agent_id: str
    agent_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRunFinished:
    """A child run ended."""

    child_run_id: str
    state: RunState
    output_json: str | None = None
    output_artifact_id: str = ""
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecorded:
    """Something was used and is settled."""

    model: str = ""
    tool: str = ""
    cost_nano_usd: int | None = None
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetBreached:
    """A budget was reached."""

    dimension: BudgetDimension
    limit_amount: int
    used_amount: int
    requested_amount: int
    budget_run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSaved:
    """An artifact was saved."""

    artifact_id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
