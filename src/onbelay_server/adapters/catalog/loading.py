"""Finds agents by entry point and by the operator's `module:function` or `path.py:function`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from onbelay_agent.definition import AgentDefinition, load
from onbelay_agent.errors import AgentNotLoaded
from onbelay_agent.tool import ToolDefinition
from onbelay_server.adapters.catalog.code_catalog import CodeCatalog
from onbelay_server.adapters.importing import first_line, imported
from onbelay_server.app.schema import schema_violations
from onbelay_server.domain.agent import HarnessKind, Limits, OnCodeChange
from onbelay_server.domain.state import Risk
from onbelay_server.ports.catalog import RegisteredCode

ENTRY_POINTS = "onbelay.agents"
"""The group of entry points in which installed packages offer agents."""

_log = logging.getLogger(__name__)


class CatalogError(ValueError):
    """What the operator named cannot be offered; the text is one line for the operator."""


def load_catalog(targets: Sequence[str] = (), *, with_installed: bool = True) -> CodeCatalog:
    """The operator's `targets` and, unless told otherwise, what installed packages offer.

    A module that holds a `BLUEPRINT` for its target is described by it, and its agent is not
    imported. An installed agent that cannot be loaded is left out and logged; of the operator's
    own, each must load. Raises CatalogError. Imports code: call it before serving.
    """
    codes: dict[str, RegisteredCode] = {}
    tools: dict[str, ToolDefinition] = {}
    for target in targets:
        code, found = _described(_absolute(target))
        known = codes.get(code.name)
        if known is not None and known.target != code.target:
            raise CatalogError(f"two agents are named {code.name}: {known.target}, {code.target}")
        codes[code.name] = code
        tools |= found
    for point in _installed() if with_installed else ():
        try:
            code, found = _described(point.value)
        except CatalogError as error:
            _log.warning(
                "an installed agent was left out: %s",
                error,
                extra={"action": "agent_left_out", "entry_point": point.name},
            )
            continue
        if code.name not in codes:
            codes[code.name] = code
            tools |= found
    return CodeCatalog(codes.values(), tools.values())


def _installed() -> Iterator[EntryPoint]:
    seen: set[tuple[str, str]] = set()
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        # An editable install beside a wheel lists the same entry point twice.
        if (point.name, point.value) not in seen:
            seen.add((point.name, point.value))
            yield point


def _absolute(target: str) -> str:
    """The target as other processes, with other working directories, find it too."""
    place, _, attribute = target.rpartition(":")
    return f"{Path(place).resolve()}:{attribute}" if place.endswith(".py") else target


def _described(target: str) -> tuple[RegisteredCode, dict[str, ToolDefinition]]:
    place, _, _ = target.rpartition(":")
    if place and not place.endswith(".py"):
        module = imported(place, CatalogError)
        blueprint = getattr(module, "BLUEPRINT", None)
        if isinstance(blueprint, Mapping) and blueprint.get("target") == target:
            return _from_blueprint(blueprint, module), {}
    try:
        definition = load(target)
    except AgentNotLoaded as error:
        raise CatalogError(first_line(error) or "it cannot be loaded") from error
    return _from_definition(definition, target), _own_tools(definition)


def _from_definition(definition: AgentDefinition, target: str) -> RegisteredCode:
    return RegisteredCode(
        name=definition.name,
        title=definition.name.replace("-", " ").capitalize(),
        description=definition.description,
        target=target,
        harness=HarnessKind.CHILD if definition.runs_in == "child" else HarnessKind.PYTHON,
        input_schema_json=_schema(definition.input_schema, definition.name, "input"),
        output_schema_json=_schema(definition.output_schema, definition.name, "output"),
        tools=definition.tools,
        highest_risk=Risk(definition.risk.upper()),
        limits=_limits(definition.limits.declared()),
        on_code_change=OnCodeChange(definition.on_code_change.upper()),
        fingerprint=definition.fingerprint,
        accepts_messages=definition.accepts_messages,
    )


def _from_blueprint(described: Mapping[str, Any], module: ModuleType) -> RegisteredCode:
    example = described.get("example", {})
    name = described["name"]
    return RegisteredCode(
        name=name,
        title=described.get("title", name),
        description=described.get("description", ""),
        target=described["target"],
        harness=HarnessKind.CHILD,
        is_blueprint=True,
        input_schema_json=_schema(described.get("input_schema", {}), name, "input"),
        output_schema_json=_schema(described.get("output_schema", {}), name, "output"),
        tools=tuple(described.get("tools", ())),
        highest_risk=Risk(str(described.get("risk", "compute")).upper()),
        limits=_limits(described.get("limits", {})),
        fingerprint=_folder_digest(module),
        expected_artifacts=tuple(one["name"] for one in described.get("output_artifacts", ())),
        example_input_json=_compact(example.get("input", {})) if example else "",
    )


def _limits(declared: Mapping[str, Any]) -> Limits:
    """What code declares; what it does not is what the contract says of any agent."""
    return Limits(**declared)


def _schema(schema: Mapping[str, Any], name: str, which: str) -> str:
    text = _compact(schema)
    for violation in schema_violations(text, f"{which}_schema"):
        # The agent checks its values itself; only the check before the start is lost.
        _log.warning(
            "the %s schema of %s is not checked here: %s",
            which,
            name,
            violation.description,
            extra={"action": "schema_left_out", "agent": name},
        )
        return "{}"
    return text


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _folder_digest(module: ModuleType) -> str:
    """SHA-256 over the Python files beside the module, so that any change of them is seen."""
    digest = hashlib.sha256()
    if module.__file__ is not None:
        folder = Path(module.__file__).parent
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            for part in (path.relative_to(folder).as_posix().encode(), content):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
    return digest.hexdigest()


def _own_tools(definition: AgentDefinition) -> dict[str, ToolDefinition]:
    """The tools that the agent names and that its module can see."""
    visible = getattr(definition.function, "__globals__", {}).values()
    found = {tool.name: tool for tool in visible if isinstance(tool, ToolDefinition)}
    return {name: found[name] for name in definition.tools if name in found}
