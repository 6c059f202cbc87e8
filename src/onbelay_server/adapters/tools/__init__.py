"""Tools that are Python functions of the operator's."""

from __future__ import annotations

from onbelay_server.adapters.tools.registered import RegisteredTools, ToolsError, load_tools

__all__ = ["RegisteredTools", "ToolsError", "load_tools"]
