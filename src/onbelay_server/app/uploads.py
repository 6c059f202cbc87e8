"""Uploads on their way in. They live in this process: a restart loses them and clients repeat."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from onbelay_server.domain.error import FailedPrecondition, ResourceExhausted
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.blobs import Blobs, BlobWriter
from onbelay_server.ports.clock import Clock

MAX_OPEN = 32
"""Open uploads of one tenant."""
IDLE_SECONDS = 3600.0
"""An upload without a chunk for so long is forgotten."""
MAX_ARTIFACT_BYTES = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One piece of an upload, and what the whole is for."""

    upload_id: str
    run_id: str
    name: str
    media_type: str
    offset_bytes: int
    content: bytes
    finish: bool
    sha256: str
    """Of the whole, lower-case hex; empty when the caller does not say."""

    @property
    def purpose_sha256(self) -> str:
        """The same for all chunks of one upload: what the caller wants it to become."""
        parts = "\0".join((self.run_id, self.name, self.media_type))
        return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(slots=True)
class Upload:
    """One upload in progress; used under its lock."""

    writer: BlobWriter
    purpose_sha256: str
    touched: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_offset: int = -1
    last_digest: bytes = b""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    is_over: bool = False

    @property
    def size_bytes(self) -> int:
        return self.writer.size_bytes

    async def finish(self, expected_sha256: str) -> str:
        """The SHA-256 of what came, now durable. Raises FailedPrecondition (CONTENT_MISMATCH)."""
        # Compared before it is kept: nobody would ever remove a blob without an artifact.
        if expected_sha256 and self.digest.hexdigest() != expected_sha256:
            raise FailedPrecondition(
                "the bytes do not have the SHA-256 that was given", reason="CONTENT_MISMATCH"
            )
        return await self.writer.finish()


class Uploads:
    """The open uploads of this process, by tenant, principal and the caller's own name."""

    def __init__(
        self,
        blobs: Blobs,
        clock: Clock,
        *,
        max_open: int = MAX_OPEN,
        max_bytes: int = MAX_ARTIFACT_BYTES,
    ) -> None:
        self._blobs = blobs
        self._clock = clock
        self._max_open = max_open
        self._max_bytes = max_bytes
        self._open: dict[tuple[str, str, str], Upload] = {}

    def is_open(self, caller: Principal, upload_id: str) -> bool:
        """Whether the upload was begun here and is not over."""
        return (caller.tenant, caller.id, upload_id) in self._open

    @asynccontextmanager
    async def taking(self, caller: Principal, chunk: Chunk) -> AsyncIterator[Upload]:
        """Append the chunk, or recognise it as a repeat, and lend the upload to the caller.

        An upload whose last chunk was taken is over when the block ends, however it ends. Raises
        FailedPrecondition (UPLOAD_OFFSET_MISMATCH, UPLOAD_CLOSED, CONTENT_MISMATCH) and
        ResourceExhausted (PAYLOAD_TOO_LARGE, QUOTA_EXCEEDED, STORE_FULL).
        """
        key = (caller.tenant, caller.id, chunk.upload_id)
        upload = await self._locked(key, chunk)
        is_kept = False
        try:
            try:
                await self._append(upload, chunk)
            except FailedPrecondition:
                is_kept = True  # Nothing was written: what came before is still good.
                raise
            yield upload
            is_kept = not chunk.finish
        finally:
            try:
                if not is_kept:
                    upload.is_over = True
                    self._open.pop(key, None)
                    await asyncio.shield(upload.writer.discard())
            finally:
                upload.lock.release()

    async def close(self) -> None:
        """Forget every open upload."""
        for upload in list(self._open.values()):
            upload.is_over = True
            await upload.writer.discard()
        self._open.clear()

    async def _locked(self, key: tuple[str, str, str], chunk: Chunk) -> Upload:
        """The open upload, with its lock held."""
        while True:
            upload = await self._find(key, chunk)
            await upload.lock.acquire()
            if not upload.is_over:
                return upload
            # It ended while this chunk waited: a repeat from the start is recognised at its end.
            upload.lock.release()

    async def _find(self, key: tuple[str, str, str], chunk: Chunk) -> Upload:
        upload = self._open.get(key)
        if upload is not None:
            return upload
        if chunk.offset_bytes:
            raise _gap(0)
        await self._forget_idle()
        if sum(1 for tenant, _, _ in self._open if tenant == key[0]) >= self._max_open:
            raise ResourceExhausted(
                "too many uploads are open",
                metadata={"quota": "open_uploads", "limit": str(self._max_open)},
            )
        writer = self._blobs.open_writer()
        upload = Upload(writer, chunk.purpose_sha256, self._clock.monotonic())
        self._open[key] = upload
        return upload

    async def _append(self, upload: Upload, chunk: Chunk) -> None:
        upload.touched = self._clock.monotonic()
        if upload.purpose_sha256 != chunk.purpose_sha256:
            raise FailedPrecondition(
                "this upload_id is in use for another artifact", reason="UPLOAD_CLOSED"
            )
        size = upload.size_bytes
        end = chunk.offset_bytes + len(chunk.content)
        if end > self._max_bytes:
            raise ResourceExhausted(
                "the artifact is too large",
                reason="PAYLOAD_TOO_LARGE",
                metadata={"limit_bytes": str(self._max_bytes)},
            )
        if chunk.offset_bytes == size:
            await upload.writer.write(chunk.content)
            upload.digest.update(chunk.content)
            upload.last_offset = chunk.offset_bytes
            upload.last_digest = hashlib.sha256(chunk.content).digest()
            return
        is_last = chunk.offset_bytes == upload.last_offset
        if end > size or (is_last and end != size) or (chunk.finish and end != size):
            raise _gap(size)
        if is_last and hashlib.sha256(chunk.content).digest() != upload.last_digest:
            raise FailedPrecondition(
                "the repeated chunk has other bytes", reason="CONTENT_MISMATCH"
            )

    async def _forget_idle(self) -> None:
        oldest = self._clock.monotonic() - IDLE_SECONDS
        for key, upload in list(self._open.items()):
            if upload.touched < oldest and not upload.lock.locked():
                upload.is_over = True
                del self._open[key]
                await upload.writer.discard()


def _gap(next_offset_bytes: int) -> FailedPrecondition:
    return FailedPrecondition(
        "the chunk does not continue the upload",
        reason="UPLOAD_OFFSET_MISMATCH",
        metadata={"next_offset_bytes": str(next_offset_bytes)},
    )
