"""A run and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onbelay_server.domain.state import FailureReason, RunState, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run failed or is held; the message is written for the run's readers."""

    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """A committed stop. It wins over whatever the agent does afterwards."""

    requested_by: str
    reason: str
    request_us: int
    grace_until_us: int
    """Until then a call in flight may finish."""
    kill_us: int
    """Then processes are killed."""
    root_id: str = ""
    """The run StopRun named, when this one is stopped as its descendant."""
    unstoppable: tuple[str, ...] = ()
    """Threads that could not be ended, by the step they ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Why a run is held, or will be at its next boundary."""

    requested_by: str = ""
    """Empty when its own replay diverged."""
    request_us: int
    step_id: str = ""
    """Diverged: the call that does not fit."""
    recorded: str = ""
    """Diverged: what the journal has there."""
    found: str = ""
    """Diverged: what the code asked for instead."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of an agent, as its row holds it. Immutable: change is `dataclasses.replace`.

    Without slots, because a row is copied for every commit and a dictionary is copied as a whole.
    """

    id: str
    tenant: str
    starter: str
    """The principal that started its root."""
    root_id: str
    parent_id: str | None = None
    depth: int = 0

    agent_id: str
    agent_name: str
    agent_revision: int
    agent_owner: str
    title: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    session_id: str = ""
    rerun_of: str = ""
    input_json: str
    input_artifacts: Mapping[str, str] = field(default_factory=dict)
    """Name the agent sees → artifact id."""

    state: RunState = RunState.QUEUED
    epoch: int = 0
    owner: str | None = None
    """The process that holds its lease."""
    lease_until_us: int | None = None
    attempt: int = 0
    """Claims since the last one that recorded a new step."""
    ready_us: int
    """Not claimed earlier."""
    pause: Pause | None = None
    """Set from PauseRun (or a divergence) to ResumeRun."""
    code_python: str = ""
    """The minor version of Python its journal was begun with, such as `3.12`."""
    code_fingerprint: str = ""
    """SHA-256 of the agent's source when its journal was begun."""
    replay_after: int = 0
    """The journal begins behind this sequence; 0 unless changed code made it begin anew."""
    active_us: int = 0
    """How long it has been RUNNING in earlier epochs; waits do not count."""
    claim_us: int | None = None
    """Since when its present epoch counts: its claim, or when there was a place for it."""
    message_count: int = 0
    """Messages sent to it so far."""
    child_count: int = 0
    """Child runs it started so far."""

    last_sequence: int = 0
    oldest_sequence: int = 1
    create_us: int
    start_us: int | None = None
    update_us: int
    finish_us: int | None = None

    output_json: str | None = None
    output_artifact_id: str = ""
    """Where the output is kept when it is too large for `output_json`."""
    error: RunError | None = None
    stop: StopRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One open call of a run that somebody else will end. Its row goes when that happened."""

    run_id: str
    step_id: str
    kind: StepKind
    since_us: int
    until_us: int | None = None
    """When it ends by itself: a timer fires, an approval expires. None: never."""
    approval_id: str | None = None
    operation_id: str | None = None
    child_run_id: str | None = None


def waiting_state(waits: list[Wait]) -> RunState:
    """The state of a parked run: the first that applies of approval, input, everything else."""
    kinds = {wait.kind for wait in waits}
    if StepKind.APPROVAL in kinds or StepKind.TOOL in kinds or StepKind.STEP in kinds:
        return RunState.WAITING_FOR_APPROVAL
    if StepKind.QUESTION in kinds or StepKind.MESSAGES in kinds:
        return RunState.WAITING_FOR_INPUT
    return RunState.BLOCKED
