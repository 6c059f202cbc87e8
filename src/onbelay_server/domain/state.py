"""The vocabulary of runs: every closed set of names the domain uses, spelled as on the wire."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands. `FINAL` states are past participles and never change again."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING_FOR_APPROVAL = "WAITING_FOR_APPROVAL"
    WAITING_FOR_INPUT = "WAITING_FOR_INPUT"
    BLOCKED = "BLOCKED"
    REVIEWING = "REVIEWING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        return self in FINAL

    @property
    def is_active(self) -> bool:
        """Neither ended nor stopping: the run can still be asked and told something."""
        return self not in FINAL and self is not RunState.STOPPING

    @property
    def is_waiting(self) -> bool:
        return self in WAITING


FINAL = frozenset({RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED})
WAITING = frozenset({RunState.WAITING_FOR_APPROVAL, RunState.WAITING_FOR_INPUT, RunState.BLOCKED})


class FailureReason(StrEnum):
    """Why a run ended FAILED (`Run.error.reason`) or is held PAUSED."""

    AGENT_ERROR = "AGENT_ERROR"
    INVALID_INPUT = "INVALID_INPUT"
    INVALID_OUTPUT = "INVALID_OUTPUT"
    AGENT_NOT_FOUND = "AGENT_NOT_FOUND"
    SPAWN_FAILED = "SPAWN_FAILED"
    HARNESS_ERROR = "HARNESS_ERROR"
    WORKER_LOST = "WORKER_LOST"
    CRASH_LOOP = "CRASH_LOOP"
    STUCK = "STUCK"
    DIVERGED = "DIVERGED"
    TIMED_OUT = "TIMED_OUT"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    HISTORY_LIMIT = "HISTORY_LIMIT"
    RESOURCE_LIMIT = "RESOURCE_LIMIT"


class StepKind(StrEnum):
    """What a journaled call of an agent asks for."""

    STEP = "STEP"
    TOOL = "TOOL"
    MODEL = "MODEL"
    APPROVAL = "APPROVAL"
    QUESTION = "QUESTION"
    CHILD = "CHILD"
    OPERATION = "OPERATION"
    TIMER = "TIMER"
    MESSAGES = "MESSAGES"
    ARTIFACT_READ = "ARTIFACT_READ"
    ARTIFACT_SAVE = "ARTIFACT_SAVE"
    VERSION = "VERSION"


class ApprovalKind(StrEnum):
    """What a person is asked."""

    TOOL_CALL = "TOOL_CALL"
    PLAN = "PLAN"
    QUESTION = "QUESTION"
    BUDGET = "BUDGET"
    RESULT = "RESULT"
    UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"


class ApprovalState(StrEnum):
    """Where an approval stands."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    USED = "USED"
    REJECTED = "REJECTED"
    ANSWERED = "ANSWERED"
    EXPIRED = "EXPIRED"
    VOIDED = "VOIDED"
    UNDONE = "UNDONE"
    SUPERSEDED = "SUPERSEDED"


class Decision(StrEnum):
    """What a person decided."""

    APPROVE = "APPROVE"
    REJECT = "REJECT"
    ANSWER = "ANSWER"


class Risk(StrEnum):
    """How much harm a tool can do; the order of the members is the order of risk."""

    READ = "READ"
    COMPUTE = "COMPUTE"
    WRITE = "WRITE"
    EXTERNAL_SEND = "EXTERNAL_SEND"
    DESTRUCTIVE = "DESTRUCTIVE"
    ADMIN = "ADMIN"
    SECRET = "SECRET"

    @property
    def rank(self) -> int:
        return list(Risk).index(self)


class LogLevel(StrEnum):
    """How loud a log line of an agent is."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
