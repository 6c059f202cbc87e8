"""Agents between the wire and the domain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from onbelay.v1 import agent_pb2, harness_pb2, tool_pb2
from onbelay_server.app.agent_rules import AgentDraft
from onbelay_server.app.agents import AgentView
from onbelay_server.domain.agent import AgentRevision, AgentSource, HarnessKind, Limits
from onbelay_server.domain.error import FieldViolation, InvalidArgument, PermissionDenied
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.domain.state import Risk
from onbelay_server.ports.catalog import Catalog, RegisteredCode
from onbelay_server.transport.grpc.wire import (
    from_duration,
    parse_json,
    to_duration,
    to_timestamp,
)

GIVEN = frozenset(
    {
        "id",
        "etag",
        "revision",
        "source",
        "owner",
        "blueprint",
        "create_time",
        "update_time",
    }
)
"""What the service gives: ignored in a draft, refused in a mask."""

_EXTRA = (
    "harness",
    "secrets",
    "skills",
    "budget",
    "approval_policy",
    "limits",
    "on_wait",
    "on_code_change",
)
"""Fields the domain keeps as one JSON text, in the wire's own JSON form."""

_ENTRY_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*\Z")
_KINDS = {
    "model": HarnessKind.MODEL,
    "subprocess": HarnessKind.SUBPROCESS,
    "http": HarnessKind.HTTP,
}
_DAY = 86_400.0
_MAX_SETTINGS_BYTES = 16_384
_ABSENT = Limits(
    grace_seconds=5.0,
    total_seconds=30 * _DAY,
    approval_seconds=7 * _DAY,
    wait_seconds=30 * _DAY,
)
"""What the contract says of an agent that names no limits."""


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
    message = ParseDict({key: extra[key] for key in _EXTRA if key in extra}, agent_pb2.Agent())
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
        message.harness.python.CopyFrom(_python(revision, catalog.get(revision.blueprint)))
    if revision.blueprint and "limits" not in extra:
        # Limits that its code declares were never on the wire.
        message.limits.total.CopyFrom(to_duration(revision.limits.total_seconds))
        message.limits.longest_wait.CopyFrom(to_duration(revision.limits.wait_seconds))
        message.limits.stop_grace.CopyFrom(to_duration(revision.limits.grace_seconds))
    return message


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


def draft_of(
    message: agent_pb2.Agent,
    caller: Principal,
    catalog: Catalog,
    *,
    base: AgentRevision | None = None,
) -> AgentDraft:
    """The draft that a message describes; `base` is the revision it changes, None for a new agent.

    A new agent may name registered code in `blueprint`; an existing one keeps its code. Raises
    InvalidArgument, and PermissionDenied for a harness that runs code without agents:run_code.
    """
    blueprint = base.blueprint if base else message.blueprint
    settings = AgentRevision(
        agent_id="",
        revision=0,
        create_us=0,
        created_by="",
        description=message.description,
        blueprint=blueprint,
        harness=_harness_kind(message, blueprint, caller, catalog, base),
        instructions=message.instructions,
        model=message.model,
        model_settings_json=_model_settings(message),
        input_schema_json=_schema(message.input_schema_json, "agent.input_schema_json"),
        output_schema_json=_schema(message.output_schema_json, "agent.output_schema_json"),
        allowed_tools=tuple(message.allowed_tools),
        highest_risk=_risk(message.allowed_risk_max),
        env=dict(message.env),
        limits=_limits(message, base.limits if base else _ABSENT),
        accepts_messages=message.accepts_messages,
        approvers=tuple(message.approvers),
        allowed_users=tuple(message.allowed_users),
        extra_json=_extra(message),
    )
    return AgentDraft(name=message.name, settings=settings)


def merged(
    current: agent_pb2.Agent, wanted: agent_pb2.Agent, paths: Iterable[str]
) -> agent_pb2.Agent:
    """`current` with the fields of the mask taken from `wanted`. The mask was checked before."""
    result = agent_pb2.Agent()
    result.CopyFrom(current)
    picked = agent_pb2.Agent()
    picked.CopyFrom(wanted)
    chosen = set(paths)
    for field in agent_pb2.Agent.DESCRIPTOR.fields:
        _clear(result if field.name in chosen else picked, field.name)
    result.MergeFrom(picked)
    return result


def check_mask(paths: Iterable[str], *, by_id: bool) -> None:
    """Raise InvalidArgument unless each path is a top-level field that a caller sets."""
    known = set(agent_pb2.Agent.DESCRIPTOR.fields_by_name)
    for path in paths:
        problem = ""
        if path not in known:
            problem = f"{path!r} is no top-level field of an agent"
        elif path in GIVEN:
            problem = f"{path!r} is given by the service"
        elif path == "name" and not by_id:
            problem = "the name can only be changed when agent.id is given"
        if problem:
            raise InvalidArgument(
                f"update_mask: {problem}", FieldViolation("update_mask.paths", problem)
            )


def _clear(message: Message, field: str) -> None:
    message.ClearField(field)


def _some(schema_json: str) -> str:
    return "" if schema_json == "{}" else schema_json


def _schema(text: str, field: str) -> str:
    if not text:
        return "{}"
    parse_json(text, field, max_bytes=65_536)
    return text


def _risk(number: int) -> Risk:
    if not number:
        return Risk.COMPUTE
    return Risk(tool_pb2.Risk.Name(tool_pb2.Risk.ValueType(number)).removeprefix("RISK_"))


def _python(revision: AgentRevision, code: RegisteredCode | None) -> harness_pb2.PythonHarness:
    # A file's path is the server's own affair.
    target = code.target if code and _ENTRY_POINT.match(code.target) else ""
    return harness_pb2.PythonHarness(
        entry_point=target, child_process=revision.harness is HarnessKind.CHILD
    )


def _harness_kind(
    message: agent_pb2.Agent,
    blueprint: str,
    caller: Principal,
    catalog: Catalog,
    base: AgentRevision | None,
) -> HarnessKind:
    asked = message.harness.WhichOneof("adapter")
    if blueprint:
        code = catalog.get(blueprint)
        kind = base.harness if base else code.harness if code else HarnessKind.PYTHON
        own = AgentRevision(
            agent_id="", revision=0, create_us=0, created_by="", harness=kind, blueprint=blueprint
        )
        if asked is None or (asked == "python" and message.harness.python == _python(own, code)):
            return kind
        raise InvalidArgument.of("agent.harness", "an agent made from code keeps that code")
    if asked == "python":
        raise InvalidArgument.of(
            "agent.harness.python", "code comes only from the operator: fork a blueprint instead"
        )
    if asked == "subprocess" and Scope.AGENTS_RUN_CODE not in caller.scopes:
        scope = Scope.AGENTS_RUN_CODE.value
        raise PermissionDenied(f"needs the scope {scope}", metadata={"scope": scope})
    return _KINDS[asked or "model"]


def _model_settings(message: agent_pb2.Agent) -> str:
    for model, text in message.model_settings_json.items():
        field = f'agent.model_settings_json["{model}"]'
        if not isinstance(parse_json(text, field, max_bytes=_MAX_SETTINGS_BYTES), dict):
            raise InvalidArgument.of(field, "must be a JSON object")
    return json.dumps(dict(message.model_settings_json), sort_keys=True, separators=(",", ":"))


def _limits(message: agent_pb2.Agent, base: Limits) -> Limits:
    limits, policy = message.limits, message.approval_policy

    def seconds(holder: Any, name: str, path: str, absent: float) -> float:
        if not holder.HasField(name):
            return absent
        return from_duration(getattr(holder, name), path, maximum_seconds=366 * _DAY)

    return replace(
        _ABSENT,
        kill_seconds=base.kill_seconds,
        grace_seconds=seconds(
            limits, "stop_grace", "agent.limits.stop_grace", _ABSENT.grace_seconds
        ),
        total_seconds=seconds(limits, "total", "agent.limits.total", _ABSENT.total_seconds),
        wait_seconds=seconds(
            limits, "longest_wait", "agent.limits.longest_wait", _ABSENT.wait_seconds
        ),
        approval_seconds=seconds(
            policy, "expire_after", "agent.approval_policy.expire_after", base.approval_seconds
        ),
    )


def _extra(message: agent_pb2.Agent) -> str:
    kept = agent_pb2.Agent()
    kept.CopyFrom(message)
    for field in agent_pb2.Agent.DESCRIPTOR.fields:
        if field.name not in _EXTRA:
            _clear(kept, field.name)
    if kept.harness.WhichOneof("adapter") in ("python", None):
        kept.ClearField("harness")
    plain = MessageToDict(kept, preserving_proto_field_name=True)
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
