"""Agents: what can be started, by name, in revisions that never change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from onbelay_server.domain.state import Risk


class HarnessKind(StrEnum):
    """How the agent's code is executed."""

    PYTHON = "PYTHON"
    """In this process, on an agent loop: trusted code that awaits."""
    CHILD = "CHILD"
    """`python -m onbelay_agent` in a process of its own: code that computes or may block."""
    MODEL = "MODEL"
    SUBPROCESS = "SUBPROCESS"
    HTTP = "HTTP"


class AgentSource(StrEnum):
    """Where an agent is defined."""

    API = "API"
    CODE = "CODE"
    """Registered by the operator; read-only through the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things of a run may take, in seconds, and how much it may record."""

    grace_seconds: float = 5.0
    """After StopRun, for a call in flight."""
    kill_seconds: float = 3.0
    """After the grace, until processes are killed."""
    total_seconds: float = 86_400.0
    """Of running; waiting for people and outside systems does not count."""
    first_response_seconds: float = 300.0
    """Of running before the agent's first event."""
    idle_seconds: float = 60.0
    """Without a pulse of the agent's loop."""
    tool_seconds: float = 1_800.0
    """For one tool call."""
    approval_seconds: float = 3_600.0
    """A pending approval or question expires after this."""
    wait_seconds: float = 30 * 86_400.0
    """The longest single wait."""
    max_events: int = 1_000_000
    """In the run's log."""
    max_log_bytes: int = 2**30
    """Of the run's log."""
    max_attempts: int = 5
    """Claims without a new recorded step before the run ends as a CRASH_LOOP."""


class OnCodeChange(StrEnum):
    """What becomes of a run whose code no longer fits its journal."""

    HOLD = "HOLD"
    FAIL = "FAIL"
    RESTART = "RESTART"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRevision:
    """Everything a run needs of its agent, fixed when it was written."""

    agent_id: str
    revision: int
    create_us: int
    created_by: str
    description: str = ""
    blueprint: str = ""
    """The registered code it runs, by the name its operator gave it."""
    harness: HarnessKind = HarnessKind.PYTHON
    instructions: str = ""
    model: str = ""
    model_settings_json: str = "{}"
    input_schema_json: str = "{}"
    output_schema_json: str = "{}"
    allowed_tools: tuple[str, ...] = ()
    highest_risk: Risk = Risk.READ
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    on_code_change: OnCodeChange = OnCodeChange.HOLD
    accepts_messages: bool = False
    approvers: tuple[str, ...] = ()
    """Principals who may decide its approvals; empty: the run's starter."""
    allowed_users: tuple[str, ...] = ()
    """Principals who may start it; empty: everybody of the tenant."""
    extra_json: str = "{}"
    """The remaining settings of the wire contract, kept for the parts that will use them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent's current row."""

    id: str
    tenant: str
    name: str
    owner: str
    source: AgentSource
    revision: int
    """The newest; revisions count from 1."""
    etag: str
    create_us: int
    update_us: int
    delete_us: int | None = None
    """Set when it was deleted: its runs keep their revision, its name is free again."""
