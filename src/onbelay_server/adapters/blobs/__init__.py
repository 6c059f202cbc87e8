"""Where blobs are kept."""

from __future__ import annotations

from onbelay_server.adapters.blobs.file import FileBlobs
from onbelay_server.adapters.blobs.memory import MemoryBlobs

__all__ = ["FileBlobs", "MemoryBlobs"]
