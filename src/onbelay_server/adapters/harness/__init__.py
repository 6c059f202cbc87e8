"""How agents' code is executed: in this process, or in a child of its own."""

from __future__ import annotations

from onbelay_server.adapters.harness.child import ChildHarness
from onbelay_server.adapters.harness.python import PythonHarness

__all__ = ["ChildHarness", "PythonHarness"]
