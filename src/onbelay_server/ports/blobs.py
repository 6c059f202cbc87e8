"""Bytes kept by their SHA-256: the contents of artifacts and of results too large for the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class BlobWriter(Protocol):
    """One blob on its way in."""

    @property
    def size_bytes(self) -> int:
        """How much has been written."""
        ...

    async def write(self, content: bytes) -> None:
        """Append. Raises ResourceExhausted (STORE_FULL) when the disk is full."""
        ...

    async def finish(self) -> str:
        """Make it durable and return its lower-case hex SHA-256. Idempotent by content."""
        ...

    async def discard(self) -> None:
        """Forget what was written."""
        ...


class Blobs(Protocol):
    """Holds blobs. A blob exists whole or not at all; its bytes never change."""

    def open_writer(self) -> BlobWriter:
        """A writer for one blob; what is unfinished is gone on restart."""
        ...

    async def put(self, content: bytes) -> str:
        """Keep bytes durably; their SHA-256."""
        ...

    async def get(self, sha256: str) -> bytes:
        """All bytes. Raises LookupError for an unknown hash."""
        ...

    def read(self, sha256: str, offset: int, chunk_bytes: int) -> AsyncIterator[bytes]:
        """The bytes from `offset` on, in chunks. Raises LookupError for an unknown hash."""
        ...

    async def delete(self, sha256: str) -> None:
        """Forget a blob; an unknown one is no error."""
        ...
