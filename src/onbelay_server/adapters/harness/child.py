"""Agents in a child process: code that computes or may block, behind the stdio protocol."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from onbelay_agent.protocol import MAX_CHUNK_BYTES, Ended, FromHost, Go, Start
from onbelay_agent.stdio import (
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
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.ports.catalog import Catalog
from onbelay_server.ports.harness import Copy, Launch, Lost, Replay

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 2 * 2**20
_MAX_TAIL_CHARACTERS = 2000
_EXIT_SECONDS = 5.0
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
"""What a child sees of the service's environment; its secrets are not in it."""


class ChildHarness:
    """Runs each copy as `python -m onbelay_agent TARGET`, the leader of a process group of its own.

    A child works in an empty folder that goes with it. It has the service's rights.
    """

    replay = Replay.JOURNALED

    def __init__(self, catalog: Catalog, *, max_children: int, max_blob_bytes: int) -> None:
        self._catalog = catalog
        self._room = asyncio.Semaphore(max_children)
        self._max_blob_bytes = max_blob_bytes
        self._copies: set[_ChildCopy] = set()

    def check(self, revision: AgentRevision) -> str | None:
        if self._catalog.get(revision.blueprint) is None:
            return f"the code {revision.blueprint!r} is not registered on this server"
        return None

    async def launch(self, launch: Launch) -> Copy:
        code = self._catalog.get(launch.revision.blueprint)
        assert code is not None, "checked before"
        copy = _ChildCopy(launch, code.target, self._room, self._max_blob_bytes)
        self._copies.add(copy)
        copy.over.add_done_callback(lambda _: self._copies.discard(copy))
        return copy

    async def close(self) -> None:
        await asyncio.gather(*(copy.kill() for copy in list(self._copies)))


class _ChildCopy:
    """The service's end of one child."""

    def __init__(
        self, launch: Launch, target: str, room: asyncio.Semaphore, max_blob_bytes: int
    ) -> None:
        self._launch = launch
        self._target = target
        self._room = room
        self._max_blob_bytes = max_blob_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._uploads: dict[str, bytearray] = {}
        self._tail = ""
        self._has_ended = False
        self.over = asyncio.create_task(self._live(), name=f"child {launch.start.run_id}")

    def send(self, frame: FromHost) -> None:
        self._outbox.put_nowait(encode_frame(frame))

    def is_to_blame(self) -> bool:
        return True  # nobody else lives in its process

    async def kill(self) -> Sequence[str]:
        self.over.cancel()
        with suppress(asyncio.CancelledError):
            await self.over
        return ()

    # ---- its life ------------------------------------------------------------------------------

    async def _live(self) -> None:
        """From the start of the process until nothing of it is left."""
        folder = Path(tempfile.mkdtemp(prefix="onbelay-"))
        try:
            async with self._room:
                await self._converse(folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _converse(self, folder: Path) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "onbelay_agent",
                self._target,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=folder,
                env=_environment(self._launch.start, folder),
                start_new_session=True,
                limit=_MAX_LINE_BYTES,
            )
        except OSError as error:
            log.warning("a child was not started: %s", error, extra={"action": "spawn_failed"})
            lost = Lost(reason="the child process could not be started", is_spawn=True)
            self._launch.hear([lost])
            return
        writing = asyncio.create_task(self._write(self._process))
        draining = asyncio.create_task(self._drain(self._process))
        try:
            reason = await self._read(self._process)
            if self._has_ended:
                await self._leave(self._process)
            else:
                _end_group(self._process)
                code = await self._process.wait()
                await asyncio.wait([draining], timeout=1.0)
                self._launch.hear([Lost(reason=reason or _obituary(code, self._tail))])
        finally:
            _end_group(self._process)
            for task in (writing, draining):
                task.cancel()
            await asyncio.gather(writing, draining, return_exceptions=True)
            await self._process.wait()

    async def _leave(self, process: asyncio.subprocess.Process) -> None:
        """Ended was said: the process has a moment to go by itself."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await process.wait()

    # ---- its pipes -----------------------------------------------------------------------------

    async def _write(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        try:
            for line in (*encode_start(self._launch.start), encode_frame(Go())):
                process.stdin.write(line)
                await process.stdin.drain()
            while True:
                process.stdin.write(await self._outbox.get())
                await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # its end is told by the reader

    async def _read(self, process: asyncio.subprocess.Process) -> str:
        """Take frames until the pipe ends; why it was cut, if we cut it."""
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
                if not line:
                    return ""
                if await self._take(decode_frame(line)):
                    return ""
            except (ValueError, BrokenFrame):
                return "the child said something that is no frame"

    async def _take(self, frame: Frame) -> bool:
        """Pass a frame on; whether it was the last."""
        match frame:
            case PutBlob():
                await self._keep(frame)
            case GetBlob():
                await self._fetch(frame.sha256)
            case Ended():
                self._has_ended = True
                self._launch.hear([frame])
                return True
            case Start() | Blob() | BlobKept():
                raise BrokenFrame("not a child's to say")
            case _:
                self._launch.hear([frame])  # type: ignore[list-item]
        return False

    async def _keep(self, piece: PutBlob) -> None:
        upload = self._uploads.setdefault(piece.sha256, bytearray())
        size = len(upload) + len(piece.content)
        if piece.offset != len(upload) or size > self._max_blob_bytes:
            raise BrokenFrame("a blob out of order or too large")
        upload += piece.content
        if piece.last:
            content = bytes(self._uploads.pop(piece.sha256))
            if hashlib.sha256(content).hexdigest() != piece.sha256:
                raise BrokenFrame("a blob that is not what it says")
            await self._launch.put_blob(content)
            self._outbox.put_nowait(encode_frame(BlobKept(sha256=piece.sha256)))

    async def _fetch(self, sha256: str) -> None:
        try:
            content = await self._launch.get_blob(sha256)
        except LookupError:
            self._outbox.put_nowait(encode_frame(Blob(sha256=sha256, missing=True)))
            return
        for offset in range(0, max(len(content), 1), MAX_CHUNK_BYTES):
            piece = content[offset : offset + MAX_CHUNK_BYTES]
            last = offset + len(piece) >= len(content)
            frame = Blob(sha256=sha256, offset=offset, content=piece, last=last)
            self._outbox.put_nowait(encode_frame(frame))

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        """Read what the agent prints, so that it never blocks on it, and remember the end."""
        assert process.stderr is not None
        while piece := await process.stderr.read(65_536):
            self._tail = (self._tail + piece.decode(errors="replace"))[-_MAX_TAIL_CHARACTERS:]


def _environment(start: Start, folder: Path) -> dict[str, str]:
    """What the child sees: an allow-list, where to import from, and the agent's own settings."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    seed = int.from_bytes(hashlib.sha256(start.seed.encode()).digest()[:4], "big")
    environment["PYTHONHASHSEED"] = str(seed)  # sets of strings iterate alike on every replay
    environment["HOME"] = str(folder)
    return {**dict(start.env), **environment}


def _end_group(process: asyncio.subprocess.Process) -> None:
    """Kill the child and everything it started that is still in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _obituary(code: int, tail: str) -> str:
    """How it ended, for the run's readers, with the last thing it printed."""
    how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")
    return f"the child process {how}" + (f": {last[:300]}" if last else "")
