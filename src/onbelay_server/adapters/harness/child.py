"""Agents in a child process: code that computes or may block, behind the stdio protocol."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sys
import time
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
from onbelay_server.adapters.harness.process import ChildProcess
from onbelay_server.adapters.harness.scratch import ScratchFolders
from onbelay_server.adapters.harness.vetting import Vetting
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.ports.catalog import Catalog
from onbelay_server.ports.harness import Copy, CopyLost, Launch, Replay

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 2 * 2**20
_MAX_TAIL_CHARACTERS = 2000
_EXIT_SECONDS = 5.0
_LAST_WORDS_SECONDS = 2.0
"""How long a dead child's pipe is read on: somebody it started may hold it for ever."""
_TURN_SECONDS = 0.001
"""How long one child is heard before everybody else has a turn of the loop."""
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
"""What a child sees of the service's environment; its secrets are not in it."""
_IMPORT_PATH = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
"""Before any agent's folder is on it: a child adds its own agent's once it has started, so that a
file beside an agent never stands in for a module of Python's."""


class ChildHarness:
    """Runs each copy as `python -m onbelay_agent TARGET`, the leader of a process group of its own.

    A child works in an empty folder that goes with it. It has the service's rights.
    """

    replay = Replay.JOURNALED

    def __init__(self, catalog: Catalog, *, max_children: int, max_blob_bytes: int) -> None:
        self._catalog = catalog
        self._room = asyncio.Semaphore(max_children)
        self._max_blob_bytes = max_blob_bytes
        self._folders = ScratchFolders()
        self._copies: set[_ChildCopy] = set()

    def check(self, revision: AgentRevision) -> str | None:
        if self._catalog.get(revision.blueprint) is None:
            return f"the code {revision.blueprint!r} is not registered on this server"
        return None

    async def launch(self, launch: Launch) -> Copy:
        code = self._catalog.get(launch.revision.blueprint)
        assert code is not None, "checked before"
        copy = _ChildCopy(launch, code.target, self._room, self._folders, self._max_blob_bytes)
        self._copies.add(copy)
        copy.over.add_done_callback(lambda _: self._copies.discard(copy))
        return copy

    async def close(self) -> None:
        await asyncio.gather(*(copy.kill() for copy in list(self._copies)))
        await asyncio.to_thread(self._folders.close)


class _ChildCopy:
    """The service's end of one child."""

    def __init__(
        self,
        launch: Launch,
        target: str,
        room: asyncio.Semaphore,
        folders: ScratchFolders,
        max_blob_bytes: int,
    ) -> None:
        self._launch = launch
        self._target = target
        self._room = room
        self._folders = folders
        self._max_blob_bytes = max_blob_bytes
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._unsent_bytes = 0
        self._upload = bytearray()
        self._uploading = ""
        """The SHA-256 of the blob that is on its way: they come one after the other."""
        self._vetting = Vetting(launch.start.journal)
        self._tail = ""
        self._has_ended = False
        self.over = asyncio.create_task(self._live(), name=f"child {launch.start.run_id}")

    def send(self, frame: FromHost) -> None:
        self._tell(encode_frame(frame))

    def is_to_blame(self) -> bool:
        return True  # nobody else lives in its process

    async def kill(self) -> Sequence[str]:
        self.over.cancel()
        with suppress(asyncio.CancelledError):
            await self.over
        return ()

    # ---- its life ------------------------------------------------------------------------------

    async def _live(self) -> None:
        """From the wait for a place until nothing of the process is left."""
        async with self._room:
            self._launch.begun()
            await self._serve()

    async def _serve(self) -> None:
        folder: Path | None = None
        try:
            folder = await asyncio.to_thread(self._folders.make)
            await self._converse(folder)
        except Exception:
            # Of our own making, a full disk say: the run must not wait for a copy nobody serves.
            log.exception("a child was not served", extra={"action": "child_broke"})
            if not self._has_ended:
                self._launch.hear(
                    [CopyLost(reason="the service could not serve the child process")]
                )
        finally:
            if folder is not None:
                await asyncio.to_thread(self._folders.remove, folder)

    async def _converse(self, folder: Path) -> None:
        command = (sys.executable, "-m", "onbelay_agent", self._target)
        environment = _environment(self._launch.start, folder)
        try:
            process = await ChildProcess.start(
                *command, folder=folder, environment=environment, limit_bytes=_MAX_LINE_BYTES
            )
        except (OSError, ValueError) as error:
            log.warning("a child was not started: %s", error, extra={"action": "spawn_failed"})
            lost = CopyLost(reason="the child process could not be started", is_spawn=True)
            self._launch.hear([lost])
            return
        writing = asyncio.create_task(self._write(process))
        draining = asyncio.create_task(self._drain(process))
        try:
            await asyncio.to_thread(self._folders.occupy, folder, process.pid)
            reason = await self._hear_out(process)
            if self._has_ended:
                await self._leave(process)
            else:
                process.kill_group()
                code = await process.ended()
                await asyncio.wait([draining], timeout=1.0)
                self._launch.hear([CopyLost(reason=reason or _obituary(code, self._tail))])
        finally:
            try:
                for task in (writing, draining):
                    task.cancel()
                await asyncio.gather(writing, draining, return_exceptions=True)
            finally:
                await process.close()

    async def _hear_out(self, process: ChildProcess) -> str:
        """Read until the pipe ends, or the process has ended and nothing more of it comes; why it
        was cut, if we cut it."""
        reading = asyncio.create_task(self._read(process))
        ending = asyncio.create_task(process.ended())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=_LAST_WORDS_SECONDS)
            return reading.result() if reading.done() else ""
        finally:
            for task in (reading, ending):
                task.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)

    async def _leave(self, process: ChildProcess) -> None:
        """Ended was said: the process has a moment to go by itself."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await process.ended()

    # ---- its pipes -----------------------------------------------------------------------------

    async def _write(self, process: ChildProcess) -> None:
        try:
            for line in (*encode_start(self._launch.start), encode_frame(Go())):
                process.stdin.write(line)
                await process.stdin.drain()
            while True:
                line = await self._outbox.get()
                self._unsent_bytes -= len(line)
                process.stdin.write(line)
                await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # its end is told by the reader

    async def _read(self, process: ChildProcess) -> str:
        """Take frames until the pipe ends; why it was cut, if we cut it."""
        turn_ends = time.monotonic() + _TURN_SECONDS
        while True:
            try:
                line = await process.stdout.readline()
                if not line:
                    return ""
                frame = decode_frame(line)
                self._vetting.vet(frame)
                if await self._take(frame):
                    return ""
            except BrokenFrame as error:
                return f"the child said something that is no frame: {str(error)[:200]}"
            except ValueError:
                return "the child said more than fits a line"
            if time.monotonic() >= turn_ends:
                await asyncio.sleep(0)  # lines that are there already are read without a pause
                turn_ends = time.monotonic() + _TURN_SECONDS

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
        if piece.offset != len(self._upload) or piece.sha256 != (self._uploading or piece.sha256):
            raise BrokenFrame("a blob out of order")
        self._uploading = piece.sha256
        self._upload += piece.content
        if len(self._upload) > self._max_blob_bytes:
            raise BrokenFrame("a blob that is too large")
        if piece.last:
            content, self._upload, self._uploading = bytes(self._upload), bytearray(), ""
            if hashlib.sha256(content).hexdigest() != piece.sha256:
                raise BrokenFrame("a blob that is not what it says")
            await self._launch.put_blob(content)
            self._vetting.kept.add(piece.sha256)
            self._tell(encode_frame(BlobKept(sha256=piece.sha256)))

    async def _fetch(self, sha256: str) -> None:
        if self._unsent_bytes > self._max_blob_bytes:
            raise BrokenFrame("it asks for more than it reads")
        try:
            content = await self._launch.get_blob(sha256)
        except LookupError:
            self._tell(encode_frame(Blob(sha256=sha256, missing=True)))
            return
        for offset in range(0, max(len(content), 1), MAX_CHUNK_BYTES):
            piece = content[offset : offset + MAX_CHUNK_BYTES]
            last = offset + len(piece) >= len(content)
            self._tell(encode_frame(Blob(sha256=sha256, offset=offset, content=piece, last=last)))

    def _tell(self, line: bytes) -> None:
        self._unsent_bytes += len(line)
        self._outbox.put_nowait(line)

    async def _drain(self, process: ChildProcess) -> None:
        """Read what the agent prints, so that it never blocks on it, and remember the end."""
        while piece := await process.stderr.read(65_536):
            self._tail = (self._tail + piece.decode(errors="replace"))[-_MAX_TAIL_CHARACTERS:]


def _environment(start: Start, folder: Path) -> dict[str, str]:
    """What the child sees: an allow-list, where to import from, and the agent's own settings."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment["PYTHONPATH"] = _IMPORT_PATH
    seed = int.from_bytes(hashlib.sha256(start.seed.encode()).digest()[:4], "big")
    environment["PYTHONHASHSEED"] = str(seed)  # sets of strings iterate alike on every replay
    environment["HOME"] = str(folder)
    return {**dict(start.env), **environment}


def _obituary(code: int, tail: str) -> str:
    """How it ended, for the run's readers, with the last thing it printed."""
    how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")
    return f"the child process {how}" + (f": {last[:300]}" if last else "")
