"""The store in memory, for tests and for runs that need not outlive the process."""

from __future__ import annotations

from onbelay_server.adapters.memory.store import MemoryStore

__all__ = ["MemoryStore"]
