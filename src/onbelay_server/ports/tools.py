"""Effects an agent may ask for through the broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from onbelay_server.domain.state import Risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool as the broker knows it."""

    name: str
    description: str
    risk: Risk
    is_idempotent: bool
    """The same idempotency key twice has one effect: it may be sent again when unsure."""
    input_schema_json: str


class ToolError(Exception):
    """The tool ran and failed. `message` is for the agent and the run's readers."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message


class Tools(Protocol):
    """The registered tools."""

    def get(self, name: str) -> Tool | None:
        """The tool of that name."""
        ...

    def list(self) -> Sequence[Tool]:
        """Every tool, by name."""
        ...

    async def call(self, name: str, arguments_json: str, *, idempotency_key: str) -> str:
        """Run it with exactly these argument bytes; its result as JSON. Raises ToolError."""
        ...
