"""What an agent's settings must satisfy: to be kept at all, and to be started here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onbelay_server.app.schema import schema_violations
from onbelay_server.domain.agent import AgentRevision, HarnessKind, Limits
from onbelay_server.domain.error import FieldViolation, InvalidArgument
from onbelay_server.ports.catalog import Catalog, RegisteredCode
from onbelay_server.ports.tools import Tools

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
MAX_ENV_VALUE_BYTES = 4096

_STEERING = re.compile(
    r"(LD_.*|DYLD_.*|PYTHON.*|ONBELAY_.*|MALLOC_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH"
    r"|PATH|HOME|SHELL|IFS|ENV|BASH_ENV|PS4|TMPDIR|NODE_OPTIONS|PERL5(OPT|LIB)|RUBY(OPT|LIB)"
    r"|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|OPENSSL_(CONF|MODULES)|SSL_CERT_(FILE|DIR))\Z"
)
"""Variables that steer the loader, the interpreter, the shell or this service."""

_BOUNDS = (
    ("limits.total", "total_seconds", 1.0, 365 * 86_400.0),
    ("limits.first_response", "first_response_seconds", 1.0, 86_400.0),
    ("limits.per_tool", "tool_seconds", 1.0, 86_400.0),
    ("limits.idle", "idle_seconds", 1.0, 3_600.0),
    ("limits.longest_wait", "wait_seconds", 1.0, 30 * 86_400.0),
    ("limits.stop_grace", "grace_seconds", 0.0, 600.0),
    ("limits.stop_kill", "kill_seconds", 0.0, 600.0),
    ("approval_policy.expire_after", "approval_seconds", 10.0, 30 * 86_400.0),
)
_COUNTS = (
    ("limits.max_attempts", "max_attempts", 1, 100),
    ("limits.max_events", "max_events", 100, 10_000_000),
    ("limits.max_log_bytes", "max_log_bytes", 2**20, 2**36),
)
_UNBUILT = (
    "secrets",
    "skills",
    "budget",
    "approval_policy.approve_from",
    "approval_policy.always_tools",
    "approval_policy.four_eyes",
    "approval_policy.review_result",
    "approval_policy.undo_window",
    "limits.max_memory_bytes",
    "limits.max_concurrent_runs",
)
"""What this version keeps and does nothing for, by its path in the contract."""
_NOTHING: tuple[object, ...] = (None, {}, "0s")
"""Absent, empty, and the undo window that there is."""
_NOT_HELD = "a waiting copy always ends soon, as with REPLAY"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDraft:
    """An agent as somebody wants it. Of `settings`, what the service gives is not looked at:
    agent_id, revision, create_us and created_by."""

    name: str
    settings: AgentRevision


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with a draft."""

    field: str
    """Path in the agent, such as `limits.total`; empty when it is no single one."""
    message: str
    is_error: bool = True
    """It cannot be started; otherwise it works, probably not as meant."""
    is_refused: bool = False
    """It is not even kept."""


def problems(draft: AgentDraft, catalog: Catalog, tools: Tools) -> list[Problem]:
    """Everything wrong with a draft, worst first."""
    found = [
        Problem(field=violation.field, message=violation.description, is_refused=True)
        for violation in _violations(draft, catalog)
    ]
    found += _hindrances(draft.settings, catalog, tools)
    found += _doubts(draft.settings, catalog)
    return found


def check(draft: AgentDraft, catalog: Catalog, field: str = "agent") -> None:
    """Raise InvalidArgument with every field for which the draft cannot be kept."""
    violations = [
        FieldViolation(f"{field}.{one.field}", one.description)
        for one in _violations(draft, catalog)
    ]
    if violations:
        first = violations[0]
        raise InvalidArgument(f"{first.field}: {first.description}", *violations)


def hindrance(revision: AgentRevision, catalog: Catalog, tools: Tools) -> str | None:
    """Why this revision cannot be started on this server, in a sentence, or None."""
    for problem in _hindrances(revision, catalog, tools):
        return problem.message
    return None


def unbuilt(settings: AgentRevision) -> list[Problem]:
    """What the agent asks for and this version does not do yet: it must not start as if it did."""
    extra = json.loads(settings.extra_json)
    return [
        Problem(field=path, message=f"this version does nothing for {path} yet")
        for path in _UNBUILT
        if _asked(extra, path) not in _NOTHING
    ]


def _asked(extra: Mapping[str, Any], path: str) -> object:
    """What the agent says for a field that is kept as the contract's JSON; None: nothing."""
    top, _, below = path.partition(".")
    return extra.get(top, {}).get(below) if below else extra.get(top)


def _violations(draft: AgentDraft, catalog: Catalog) -> Iterator[FieldViolation]:
    settings = draft.settings
    if not NAME.match(draft.name):
        yield FieldViolation("name", "1 to 63 characters of [a-z0-9-], a letter first")
    yield from schema_violations(settings.input_schema_json, "input_schema_json")
    yield from schema_violations(settings.output_schema_json, "output_schema_json")
    yield from _env_violations(settings)
    yield from _limit_violations(settings.limits)
    if settings.blueprint and catalog.get(settings.blueprint) is None:
        yield FieldViolation("blueprint", "no code of this name is registered on this server")
    if not settings.blueprint and settings.harness in (HarnessKind.PYTHON, HarnessKind.CHILD):
        yield FieldViolation(
            "harness.python", "code comes only from the operator: fork a blueprint instead"
        )


def _env_violations(settings: AgentRevision) -> Iterator[FieldViolation]:
    secrets = json.loads(settings.extra_json).get("secrets", {})
    for field, names in (("env", settings.env), ("secrets", secrets)):
        for name in names:
            if not ENV_NAME.match(name):
                yield FieldViolation(f"{field}[{name!r}]", "not a POSIX name of a variable")
            elif _STEERING.match(name.upper()):
                yield FieldViolation(
                    f"{field}[{name!r}]",
                    "steers the interpreter, the loader, the shell or the service",
                )
    for name in settings.env.keys() & secrets.keys():
        yield FieldViolation(f"secrets[{name!r}]", "is in env as well")
    for name, value in settings.env.items():
        if len(value.encode()) > MAX_ENV_VALUE_BYTES or "\0" in value:
            yield FieldViolation(
                f"env[{name!r}]", f"at most {MAX_ENV_VALUE_BYTES} bytes, none of them NUL"
            )


def _limit_violations(limits: Limits) -> Iterator[FieldViolation]:
    for field, attribute, lowest, highest in _BOUNDS:
        if not lowest <= getattr(limits, attribute) <= highest:
            yield FieldViolation(field, f"between {lowest:g} and {highest:g} seconds")
    for field, attribute, least, most in _COUNTS:
        if not least <= getattr(limits, attribute) <= most:
            yield FieldViolation(field, f"between {least} and {most}")


def _hindrances(settings: AgentRevision, catalog: Catalog, tools: Tools) -> Iterator[Problem]:
    """What keeps it from being started here, though another server or version may start it."""
    if settings.harness in (HarnessKind.MODEL, HarnessKind.SUBPROCESS, HarnessKind.HTTP):
        kind = settings.harness.value.lower()
        yield Problem(field="harness", message=f"this server has no harness `{kind}`")
    code = _code(settings, catalog)
    if settings.blueprint and code is None:
        yield Problem(field="blueprint", message="its code is not registered on this server")
    for index, name in enumerate(settings.allowed_tools):
        tool = tools.get(name)
        field = f"allowed_tools[{index}]"
        if tool is None:
            yield Problem(field=field, message=f"this server has no tool {name!r}")
        elif tool.risk.rank > settings.highest_risk.rank:
            yield Problem(
                field=field,
                message=f"the risk of {name!r} is {tool.risk}, above the highest that is allowed",
            )
    yield from unbuilt(settings)


def _doubts(settings: AgentRevision, catalog: Catalog) -> Iterator[Problem]:
    code = _code(settings, catalog)
    if code is not None and settings.instructions:
        yield Problem(
            field="instructions", message="this agent's code does not read them", is_error=False
        )
    if code is not None:
        for name in sorted(set(code.tools) - set(settings.allowed_tools)):
            yield Problem(
                field="allowed_tools",
                message=f"its code may call {name!r}, which is not among them",
                is_error=False,
            )
        if settings.accepts_messages and not code.accepts_messages:
            yield Problem(
                field="accepts_messages", message="its code takes no messages", is_error=False
            )
    extra = json.loads(settings.extra_json)
    if _asked(extra, "on_wait") == "ON_WAIT_HOLD":
        yield Problem(field="on_wait", message=_NOT_HELD, is_error=False)
    if _asked(extra, "limits.hold_wait") is not None:
        yield Problem(field="limits.hold_wait", message=_NOT_HELD, is_error=False)
    if settings.output_schema_json not in ("{}", code.output_schema_json if code else "{}"):
        yield Problem(
            field="output_schema_json",
            message="outputs are not checked against it",
            is_error=False,
        )


def _code(settings: AgentRevision, catalog: Catalog) -> RegisteredCode | None:
    return catalog.get(settings.blueprint) if settings.blueprint else None
