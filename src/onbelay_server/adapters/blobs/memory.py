"""Blobs in memory, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from onbelay_server.ports.blobs import BlobWriter


class MemoryBlobs:
    """Blobs over a dictionary."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def open_writer(self) -> BlobWriter:
        return _MemoryWriter(self)

    async def put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self._contents[sha256] = content
        return sha256

    async def get(self, sha256: str) -> bytes:
        return self._contents[sha256]

    async def read(self, sha256: str, offset: int, chunk_bytes: int) -> AsyncIterator[bytes]:
        content = self._contents[sha256]
        for start in range(offset, len(content), chunk_bytes):
            yield content[start : start + chunk_bytes]

    async def delete(self, sha256: str) -> None:
        self._contents.pop(sha256, None)


class _MemoryWriter:
    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._content = bytearray()

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    async def write(self, content: bytes) -> None:
        self._content += content

    async def finish(self) -> str:
        return await self._blobs.put(bytes(self._content))

    async def discard(self) -> None:
        self._content.clear()
