from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from onbelay_server.adapters.blobs import FileBlobs, MemoryBlobs
from onbelay_server.domain.error import DomainError, ResourceExhausted, Unavailable
from onbelay_server.ports.blobs import Blobs

CONTENT = bytes(range(256)) * 1_000


@pytest.fixture(params=["memory", "file"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return MemoryBlobs() if request.param == "memory" else FileBlobs(tmp_path / "blobs")


async def collected(blobs: Blobs, sha256: str, offset: int, chunk_bytes: int) -> list[bytes]:
    return [chunk async for chunk in blobs.read(sha256, offset, chunk_bytes)]


async def test_what_was_put_is_found_by_its_hash(blobs: Blobs) -> None:
    sha256 = await blobs.put(CONTENT)
    assert sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert await blobs.put(CONTENT) == sha256
    assert await blobs.get(sha256) == CONTENT
    assert await blobs.get(await blobs.put(b"")) == b""


async def test_reading_in_chunks_from_an_offset(blobs: Blobs) -> None:
    sha256 = await blobs.put(CONTENT)
    chunks = await collected(blobs, sha256, 100, 100_000)
    assert [len(chunk) for chunk in chunks] == [100_000, 100_000, 55_900]
    assert b"".join(chunks) == CONTENT[100:]
    assert await collected(blobs, sha256, len(CONTENT), 10) == []


async def test_a_writer_makes_a_blob_of_its_parts(blobs: Blobs) -> None:
    writer = blobs.open_writer()
    for start in range(0, len(CONTENT), 100_000):
        await writer.write(CONTENT[start : start + 100_000])
    assert writer.size_bytes == len(CONTENT)
    sha256 = await writer.finish()
    assert await writer.finish() == sha256
    await writer.discard()
    assert await blobs.get(sha256) == CONTENT


async def test_what_was_discarded_is_nowhere(blobs: Blobs) -> None:
    writer = blobs.open_writer()
    await writer.write(CONTENT)
    await writer.discard()
    with pytest.raises(LookupError):
        await blobs.get(hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.parametrize("sha256", ["0" * 64, "", "../../etc/passwd", "A" * 64])
async def test_unknown_hashes(blobs: Blobs, sha256: str) -> None:
    with pytest.raises(LookupError):
        await blobs.get(sha256)
    with pytest.raises(LookupError):
        await collected(blobs, sha256, 0, 10)


async def test_a_deleted_blob_is_gone(blobs: Blobs) -> None:
    sha256 = await blobs.put(CONTENT)
    await blobs.delete(sha256)
    await blobs.delete(sha256)
    with pytest.raises(LookupError):
        await blobs.get(sha256)


async def test_files_are_private_and_unfinished_ones_go(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    sha256 = await blobs.put(CONTENT)
    path = tmp_path / sha256[:2] / sha256[2:4] / sha256
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await blobs.open_writer().write(b"half")
    assert len(list((tmp_path / "unfinished").iterdir())) == 1

    again = FileBlobs(tmp_path)

    assert list((tmp_path / "unfinished").iterdir()) == []
    assert await again.get(sha256) == CONTENT


@pytest.mark.parametrize(
    ("number", "error", "reason"),
    [
        (errno.ENOSPC, ResourceExhausted, "STORE_FULL"),
        (errno.EDQUOT, ResourceExhausted, "STORE_FULL"),
        (errno.EIO, Unavailable, "STORE_UNAVAILABLE"),
    ],
)
async def test_a_failing_disk_has_a_name_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[DomainError],
    reason: str,
) -> None:
    blobs = FileBlobs(tmp_path)

    def fail(*_arguments: object) -> int:
        raise OSError(number, "disk")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        with pytest.raises(error) as refused:
            await blobs.put(CONTENT)
    assert refused.value.reason == reason
    assert list((tmp_path / "unfinished").iterdir()) == []
    assert await blobs.get(await blobs.put(CONTENT)) == CONTENT


async def test_a_cancelled_upload_closes_its_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread works on when its caller is gone: a second close may hit another file."""
    closed: list[int] = []
    syncing, go_on = threading.Event(), threading.Event()
    real_close, real_fsync = os.close, os.fsync

    def slow_fsync(file: int) -> None:
        syncing.set()
        assert go_on.wait(10)
        real_fsync(file)

    def noted_close(file: int) -> None:
        closed.append(file)
        real_close(file)

    writer = FileBlobs(tmp_path / "blobs").open_writer()
    await writer.write(CONTENT)
    monkeypatch.setattr(os, "fsync", slow_fsync)
    monkeypatch.setattr(os, "close", noted_close)
    finishing = asyncio.ensure_future(writer.finish())
    assert await asyncio.to_thread(syncing.wait, 10)
    finishing.cancel()
    discarding = asyncio.ensure_future(writer.discard())
    await asyncio.wait([discarding], timeout=0.2)
    assert closed == [], "the file is still being kept"
    go_on.set()
    await discarding
    with pytest.raises(asyncio.CancelledError):
        await finishing
