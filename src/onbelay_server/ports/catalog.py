"""The code that the operator registered: the only code agents can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onbelay_server.domain.agent import HarnessKind, Limits, OnCodeChange
from onbelay_server.domain.state import Risk


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredCode:
    """One piece of agent code, as its author described it. Immutable while the process runs."""

    name: str
    """Unique in the catalog: `[a-z][a-z0-9-]*`."""
    title: str = ""
    """Its name for people."""
    description: str = ""
    """What it does, as Markdown."""
    target: str
    """`module:function` or `path.py:function`: what a harness loads."""
    harness: HarnessKind
    """PYTHON or CHILD."""
    is_blueprint: bool = False
    """Offered as something to make agents of one's own from."""
    input_schema_json: str = "{}"
    output_schema_json: str = "{}"
    tools: tuple[str, ...] = ()
    highest_risk: Risk = Risk.READ
    limits: Limits = field(default_factory=Limits)
    on_code_change: OnCodeChange = OnCodeChange.HOLD
    fingerprint: str = ""
    """Lower-case hex SHA-256 of the code; a new one makes a new revision of its agents."""
    accepts_messages: bool = False
    expected_artifacts: tuple[str, ...] = ()
    """Names of the artifacts it leaves."""
    example_input_json: str = ""
    """An input that works; empty when none is given."""


class Catalog(Protocol):
    """Holds the registered code. It is read at start and does not change afterwards."""

    def get(self, name: str) -> RegisteredCode | None:
        """The code of that name."""
        ...

    def list(self) -> Sequence[RegisteredCode]:
        """All code, by name."""
        ...
