"""Agents as callers want them: from the wire to a draft."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from onbelay.v1 import agent_pb2, tool_pb2
from onbelay_server.app.agent_rules import AgentDraft
from onbelay_server.domain.agent import AgentRevision, HarnessKind, Limits, OnCodeChange
from onbelay_server.domain.error import FieldViolation, InvalidArgument, PermissionDenied
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.domain.state import Risk
from onbelay_server.ports.catalog import Catalog
from onbelay_server.transport.grpc.agent_wire import COUNTS, EXTRA, LIMITS, python_harness
from onbelay_server.transport.grpc.wire import from_duration, parse_json

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

_KINDS = {
    "model": HarnessKind.MODEL,
    "subprocess": HarnessKind.SUBPROCESS,
    "http": HarnessKind.HTTP,
}
_DAY = 86_400.0
_MAX_SETTINGS_BYTES = 16_384
_ABSENT = Limits()
"""What the contract says of an agent that names no limits."""


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
        on_code_change=_on_code_change(message.on_code_change),
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


def _schema(text: str, field: str) -> str:
    if not text:
        return "{}"
    parse_json(text, field, max_bytes=65_536)
    return text


def _risk(number: int) -> Risk:
    if not number:
        return Risk.COMPUTE
    return Risk(tool_pb2.Risk.Name(tool_pb2.Risk.ValueType(number)).removeprefix("RISK_"))


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
        own = python_harness(kind, code)
        if asked is None or (asked == "python" and message.harness.python == own):
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
    policy = message.approval_policy
    set_fields = {field.name: value for field, value in message.limits.ListFields()}
    given: dict[str, Any] = {
        attribute: from_duration(
            set_fields[name], f"agent.limits.{name}", maximum_seconds=366 * _DAY
        )
        for name, attribute in LIMITS.items()
        if name in set_fields
    }
    given |= {name: set_fields[name] for name in COUNTS if name in set_fields}
    approval_seconds = base.approval_seconds
    if policy.HasField("expire_after"):
        approval_seconds = from_duration(
            policy.expire_after, "agent.approval_policy.expire_after", maximum_seconds=366 * _DAY
        )
    return replace(_ABSENT, approval_seconds=approval_seconds, **given)


def _on_code_change(number: int) -> OnCodeChange:
    if not number:
        return OnCodeChange.HOLD
    name = agent_pb2.OnCodeChange.Name(agent_pb2.OnCodeChange.ValueType(number))
    return OnCodeChange(name.removeprefix("ON_CODE_CHANGE_"))


def _extra(message: agent_pb2.Agent) -> str:
    kept = agent_pb2.Agent()
    kept.CopyFrom(message)
    for field in agent_pb2.Agent.DESCRIPTOR.fields:
        if field.name not in EXTRA:
            _clear(kept, field.name)
    if kept.harness.WhichOneof("adapter") in ("python", None):
        kept.ClearField("harness")
    for name in (*LIMITS, *COUNTS):
        _clear(kept.limits, name)
    if not kept.limits.ListFields():
        kept.ClearField("limits")
    plain = MessageToDict(kept, preserving_proto_field_name=True)
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
