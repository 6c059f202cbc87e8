"""The child's side of the pipe: a Host whose log is kept by the process at its other end.

Reading and writing have a thread each, so neither ever blocks the agent. A copy without a host must
not go on: when the pipe breaks before Ended was sent, the process and its group end at once.

Blobs cross in pieces of at most MAX_CHUNK_BYTES: `put_blob` lines until `last`, answered by
`blob_kept`; `get_blob` answered by `blob` lines until `last`, or by one that says `missing`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, NoReturn, cast

from onbelay_agent.frames import (
    Blob,
    BlobKept,
    BrokenFrame,
    Frame,
    GetBlob,
    PutBlob,
    decode_frame,
    encode_frame,
    encode_start,
)
from onbelay_agent.protocol import MAX_CHUNK_BYTES, Ended, FromHost, ToHost

EXIT_ENDED = 0
EXIT_NO_AGENT = 2
EXIT_HOST_LOST = 70


class PipeHost:
    """Implements protocol.Host over a pair of binary streams. Made on the loop it is used from."""

    def __init__(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        lost: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._receive: Callable[[FromHost], None] | None = None
        self._early: list[FromHost] = []
        self._kept: dict[str, asyncio.Future[None]] = {}
        self._wanted: dict[str, asyncio.Future[bytes]] = {}
        self._pieces: dict[str, bytearray] = {}
        self._ending = False
        self.flushed = asyncio.Event()
        """Ended has left this process."""
        threading.Thread(target=self._write_lines, name="pipe writer", daemon=True).start()
        threading.Thread(target=self._read_lines, name="pipe reader", daemon=True).start()

    def deliver_to(self, receive: Callable[[FromHost], None]) -> None:
        """Who takes the host's frames; those that came before are handed over at once."""
        self._receive = receive
        early, self._early = self._early, []
        for frame in early:
            receive(frame)

    def send(self, frame: ToHost) -> None:
        """Queue a frame."""
        if isinstance(frame, Ended):
            self._ending = True
        self._lines.put(encode_frame(frame))
        if self._ending:
            self._lines.put(None)

    async def put_blob(self, content: bytes) -> str:
        """Send bytes in pieces; returns once the host has kept them."""
        sha256 = hashlib.sha256(content).hexdigest()
        waiting = self._kept.get(sha256)
        if waiting is None:
            waiting = self._kept[sha256] = self._loop.create_future()
            for offset in range(0, max(1, len(content)), MAX_CHUNK_BYTES):
                piece = content[offset : offset + MAX_CHUNK_BYTES]
                last = offset + len(piece) >= len(content)
                frame = PutBlob(sha256=sha256, offset=offset, content=piece, last=last)
                self._lines.put(encode_frame(frame))
        await asyncio.shield(waiting)
        return sha256

    async def get_blob(self, sha256: str) -> bytes:
        """Bytes the host holds. Raises LookupError when it does not."""
        waiting = self._wanted.get(sha256)
        if waiting is None:
            waiting = self._wanted[sha256] = self._loop.create_future()
            self._lines.put(encode_frame(GetBlob(sha256=sha256)))
        return await asyncio.shield(waiting)

    # ---- threads ---------------------------------------------------------------------------------

    def _write_lines(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                self._writer.write(line)
                if self._lines.empty():
                    self._writer.flush()
            self._writer.flush()
        except (OSError, ValueError):
            self._lost()
            return
        self._on_loop(self.flushed.set)

    def _read_lines(self) -> None:
        try:
            for line in self._reader:
                if not line.endswith(b"\n"):
                    break
                self._on_loop(self._take, decode_frame(line))
        except (OSError, ValueError) as error:
            if isinstance(error, BrokenFrame):
                print(f"onbelay: {error}", file=sys.stderr)
        if not self._ending:
            self._lost()

    def _on_loop(self, callback: Callable[..., None], *args: Frame) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop is closed: the process is on its way out.
            return

    # ---- frames ----------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        match frame:
            case BlobKept():
                kept = self._kept.pop(frame.sha256, None)
                if kept is not None:
                    kept.set_result(None)
            case Blob():
                self._take_piece(frame)
            case _ if self._receive is None:
                self._early.append(cast(FromHost, frame))
            case _:
                self._receive(cast(FromHost, frame))

    def _take_piece(self, frame: Blob) -> None:
        wanted = self._wanted.get(frame.sha256)
        if wanted is None:
            return
        pieces = self._pieces.setdefault(frame.sha256, bytearray())
        broken = frame.offset != len(pieces)
        pieces += frame.content
        if not (frame.last or frame.missing or broken):
            return
        del self._wanted[frame.sha256], self._pieces[frame.sha256]
        if frame.missing:
            wanted.set_exception(LookupError(f"the host holds no blob {frame.sha256}"))
        elif broken or hashlib.sha256(pieces).hexdigest() != frame.sha256:
            wanted.set_exception(LookupError(f"blob {frame.sha256} did not arrive whole"))
        else:
            wanted.set_result(bytes(pieces))


def exit_without_host() -> NoReturn:
    """End the process at once, with all it has started: nobody keeps this copy's log any more."""
    with suppress(Exception):  # standard error went with the host, or is the agent's own
        sys.stderr.flush()
    # A host gives a child a session of its own. Without one the group is somebody else's too.
    if sys.platform != "win32" and os.getsid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(EXIT_HOST_LOST)


__all__ = [
    "EXIT_ENDED",
    "EXIT_HOST_LOST",
    "EXIT_NO_AGENT",
    "Blob",
    "BlobKept",
    "BrokenFrame",
    "Frame",
    "GetBlob",
    "PipeHost",
    "PutBlob",
    "decode_frame",
    "encode_frame",
    "encode_start",
    "exit_without_host",
]
