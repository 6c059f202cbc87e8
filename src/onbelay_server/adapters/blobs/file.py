"""Blobs as files named by their SHA-256, two levels of folders deep."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from onbelay_server.domain.error import ResourceExhausted, Unavailable
from onbelay_server.ports.blobs import BlobWriter

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def blob_path(folder: Path, sha256: str) -> Path:
    """Where the blob of that hash lies below a folder of blobs. Raises LookupError for what is no
    hash."""
    if not _SHA256.fullmatch(sha256):
        raise LookupError(sha256)
    return folder / sha256[:2] / sha256[2:4] / sha256


class FileBlobs:
    """Blobs in a folder that belongs to one process.

    A file appears under its name only when its bytes are on the disk: it is written beside, synced
    and renamed. What an ended process left unfinished is removed when the folder is opened. Raises
    Unavailable when the disk fails.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder / "unfinished"
        self._unfinished.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._unfinished.iterdir():
            left.unlink()

    def open_writer(self) -> BlobWriter:
        return FileWriter(self, self._unfinished / secrets.token_hex(16))

    async def put(self, content: bytes) -> str:
        writer = FileWriter(self, self._unfinished / secrets.token_hex(16))
        try:
            await writer.write(content)
            return await writer.finish()
        except BaseException:
            await writer.discard()
            raise

    async def get(self, sha256: str) -> bytes:
        try:
            return await asyncio.to_thread(self.path(sha256).read_bytes)
        except FileNotFoundError:
            raise LookupError(sha256) from None

    async def read(self, sha256: str, offset: int, chunk_bytes: int) -> AsyncIterator[bytes]:
        path = self.path(sha256)
        while True:
            # Opened for each chunk: a reader who is slow, or never comes back, holds nothing.
            chunk = await asyncio.to_thread(_chunk, path, offset, chunk_bytes)
            if not chunk:
                return
            yield chunk
            offset += len(chunk)

    async def delete(self, sha256: str) -> None:
        path = self.path(sha256)
        with suppress(FileNotFoundError):
            await asyncio.to_thread(path.unlink)

    def path(self, sha256: str) -> Path:
        """Where the blob of that hash is kept. Raises LookupError for what is no hash."""
        return blob_path(self._folder, sha256)


class FileWriter:
    """One file on its way in."""

    def __init__(self, blobs: FileBlobs, path: Path) -> None:
        self._blobs = blobs
        self._path = path
        self._digest = hashlib.sha256()
        self._size = 0
        self._file: int | None = None
        self._sha256: str | None = None
        self._at_work = threading.Lock()
        """A caller that is cancelled leaves its thread at work: what it does next must wait for it,
        or a file would be closed twice, the second time as somebody else's."""

    @property
    def size_bytes(self) -> int:
        return self._size

    async def write(self, content: bytes) -> None:
        await asyncio.to_thread(self._guarded, self._append, content)

    async def finish(self) -> str:
        if self._sha256 is None:
            await asyncio.to_thread(self._guarded, self._keep, b"")
        assert self._sha256 is not None
        return self._sha256

    async def discard(self) -> None:
        await asyncio.to_thread(self._forget)

    def _guarded(self, action: object, content: bytes) -> None:
        assert callable(action)
        try:
            with self._at_work:
                action(content)
        except OSError as error:
            if error.errno in _FULL:
                raise ResourceExhausted(
                    "no space is left for files", reason="STORE_FULL", retry_after_seconds=60.0
                ) from error
            raise Unavailable("files cannot be kept now", retry_after_seconds=5.0) from error

    def _opened(self) -> int:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)
        return self._file

    def _append(self, content: bytes) -> None:
        file = self._opened()
        left = memoryview(content)
        while left:
            # At its own offset: after a write that failed half-way the same bytes go there again.
            count = os.pwrite(file, left, self._size + len(content) - len(left))
            left = left[count:]
        self._digest.update(content)
        self._size += len(content)

    def _keep(self, _: bytes) -> None:
        file = self._opened()
        os.ftruncate(file, self._size)
        os.fsync(file)
        sha256 = self._digest.hexdigest()
        path = self._blobs.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.replace(path)
        # The name is on the disk only with its folders, and they with theirs.
        for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
            _sync_folder(folder)
        self._file, self._sha256 = None, sha256
        os.close(file)

    def _forget(self) -> None:
        with self._at_work:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)
                with suppress(FileNotFoundError):
                    self._path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _chunk(path: Path, offset: int, count: int) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LookupError(path.name) from None
    try:
        return os.pread(file, count, offset)
    finally:
        os.close(file)
