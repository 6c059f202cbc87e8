"""Agents between the wire and the domain."""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf.json_format import ParseDict

from onbelay.v1 import agent_pb2, harness_pb2, tool_pb2
from onbelay_server.app.agents import AgentView
from onbelay_server.domain.agent import (
    AgentRevision,
    AgentSource,
    HarnessKind,
    Limits,
    OnCodeChange,
)
from onbelay_server.domain.state import Risk
from onbelay_server.ports.catalog import Catalog, RegisteredCode
from onbelay_server.transport.grpc.wire import (
    to_duration,
    to_timestamp,
)

EXTRA = (
    "harness",
    "secrets",
    "skills",
    "budget",
    "approval_policy",
    "limits",
    "on_wait",
)
"""Fields the domain keeps as one JSON text, in the wire's own JSON form; of `limits` those that are
not in LIMITS or COUNTS."""

LIMITS = {
    "total": "total_seconds",
    "first_response": "first_response_seconds",
    "per_tool": "tool_seconds",
    "idle": "idle_seconds",
    "longest_wait": "wait_seconds",
    "stop_grace": "grace_seconds",
    "stop_kill": "kill_seconds",
}
"""Durations of AgentLimits, by their names in the domain."""
COUNTS = ("max_attempts", "max_events", "max_log_bytes")
"""Numbers of AgentLimits, with the same names in the domain."""

_ENTRY_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*\Z")


def to_risk(risk: Risk) -> tool_pb2.Risk.ValueType:
    """The wire's number for a risk."""
    return tool_pb2.Risk.Value(f"RISK_{risk.value}")


def to_source(source: AgentSource) -> agent_pb2.AgentSource.ValueType:
    """The wire's number for where an agent is defined."""
    return agent_pb2.AgentSource.Value(f"AGENT_SOURCE_{source.value}")


def to_agent(view: AgentView, catalog: Catalog) -> agent_pb2.Agent:
    """An agent at one of its revisions, with everything."""
    agent = view.agent
    message = to_settings(view.revision, catalog, name=agent.name)
    message.id = agent.id
    message.revision = view.revision.revision
    message.etag = agent.etag
    message.source = to_source(agent.source)
    message.owner = agent.owner
    if agent.source is AgentSource.API:
        message.blueprint = view.revision.blueprint
    message.create_time.CopyFrom(to_timestamp(agent.create_us))
    message.update_time.CopyFrom(to_timestamp(view.revision.create_us))
    return message


def to_listed(view: AgentView, catalog: Catalog) -> agent_pb2.Agent:
    """An agent as lists show it: without instructions and schemas."""
    message = to_agent(view, catalog)
    for field in ("instructions", "input_schema_json", "output_schema_json"):
        message.ClearField(field)
    return message


def to_settings(revision: AgentRevision, catalog: Catalog, *, name: str) -> agent_pb2.Agent:
    """A revision's settings, without what the service gives beside them."""
    extra: dict[str, Any] = json.loads(revision.extra_json)
    message = ParseDict({key: extra[key] for key in EXTRA if key in extra}, agent_pb2.Agent())
    message.name = name
    message.description = revision.description
    message.instructions = revision.instructions
    message.model = revision.model
    message.model_settings_json.update(json.loads(revision.model_settings_json))
    message.input_schema_json = _some(revision.input_schema_json)
    message.output_schema_json = _some(revision.output_schema_json)
    message.allowed_tools.extend(revision.allowed_tools)
    message.allowed_risk_max = to_risk(revision.highest_risk)
    message.env.update(revision.env)
    message.accepts_messages = revision.accepts_messages
    message.approvers.extend(revision.approvers)
    message.allowed_users.extend(revision.allowed_users)
    if revision.harness in (HarnessKind.PYTHON, HarnessKind.CHILD):
        code = catalog.get(revision.blueprint)
        message.harness.python.CopyFrom(python_harness(revision.harness, code))
    _show_limits(message.limits, revision.limits)
    message.on_code_change = to_on_code_change(revision.on_code_change)
    return message


def _show_limits(message: agent_pb2.AgentLimits, limits: Limits) -> None:
    for name, attribute in LIMITS.items():
        getattr(message, name).CopyFrom(to_duration(getattr(limits, attribute)))
    for name in COUNTS:
        setattr(message, name, getattr(limits, name))


def to_on_code_change(rule: OnCodeChange) -> agent_pb2.OnCodeChange.ValueType:
    """The wire's number for what becomes of a run whose code changed."""
    return agent_pb2.OnCodeChange.Value(f"ON_CODE_CHANGE_{rule.value}")


def to_blueprint(
    code: RegisteredCode, settings: AgentRevision, catalog: Catalog
) -> agent_pb2.Blueprint:
    """A blueprint with the agent that a fork of it begins as."""
    return agent_pb2.Blueprint(
        name=code.name,
        title=code.title or code.name,
        description=code.description,
        agent=to_settings(settings, catalog, name=code.name),
        expected_artifacts=code.expected_artifacts,
        example_input_json=code.example_input_json,
    )


def _some(schema_json: str) -> str:
    return "" if schema_json == "{}" else schema_json


def python_harness(kind: HarnessKind, code: RegisteredCode | None) -> harness_pb2.PythonHarness:
    """The harness of code, as agents show it."""
    # A file's path is the server's own affair.
    target = code.target if code and _ENTRY_POINT.match(code.target) else ""
    return harness_pb2.PythonHarness(entry_point=target, child_process=kind is HarnessKind.CHILD)
