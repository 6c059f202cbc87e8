"""The registered code, held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onbelay_agent.tool import ToolDefinition
from onbelay_server.ports.catalog import RegisteredCode


class CodeCatalog:
    """Implements Catalog over what was found at start."""

    def __init__(
        self, codes: Iterable[RegisteredCode] = (), tools: Iterable[ToolDefinition] = ()
    ) -> None:
        self._codes = {code.name: code for code in sorted(codes, key=lambda code: code.name)}
        self.tools: tuple[ToolDefinition, ...] = tuple(tools)
        """Tools that stand in the modules of these agents and are named by them."""

    def get(self, name: str) -> RegisteredCode | None:
        """The code of that name."""
        return self._codes.get(name)

    def list(self) -> Sequence[RegisteredCode]:
        """All code, by name."""
        return tuple(self._codes.values())
