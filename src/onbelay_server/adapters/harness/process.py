"""A child process, the leader of a session of its own, whose end is seen when it comes."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from onbelay_server.adapters.harness.lifeline import Lifeline


class _Protocol(SubprocessStreamProtocol):
    """Knows that the process has ended although somebody else still holds its pipes."""

    def __init__(self, limit_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit_bytes, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class ChildProcess:
    """`Process.wait` returns only once every pipe is closed, and a grandchild that left the group
    may hold them for ever. This one's `ended` does not ask who else is there."""

    def __init__(
        self, transport: asyncio.SubprocessTransport, protocol: _Protocol, lifeline: Lifeline
    ) -> None:
        process = Process(transport, protocol, asyncio.get_running_loop())
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self.pid = transport.get_pid()
        self._transport = transport
        self._protocol = protocol
        self._lifeline = lifeline

    @classmethod
    async def start(
        cls, *command: str, folder: Path, environment: Mapping[str, str], limit_bytes: int
    ) -> ChildProcess:
        """`limit_bytes`: the longest line that can be read from it. Raises OSError or ValueError
        when it cannot be started."""
        loop = asyncio.get_running_loop()
        lifeline = Lifeline()
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: _Protocol(limit_bytes, loop),
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=folder,
                env=environment,
                start_new_session=True,
                pass_fds=(lifeline.child_end,),
            )
        except BaseException:
            lifeline.cut()
            raise
        lifeline.tie(transport.get_pid())
        return cls(transport, protocol, lifeline)

    async def ended(self) -> int:
        """Its exit code, once it has ended; negative: the signal that killed it."""
        await self._protocol.exited.wait()
        code = self._transport.get_returncode()
        assert code is not None, "it has ended"
        return code

    def kill_group(self) -> None:
        """Kill it and everything it started that is still in its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Leave nothing of it: its group, its zombie, our ends of its pipes."""
        self.kill_group()
        try:
            await self._protocol.exited.wait()
        finally:
            self._transport.close()
            self._lifeline.cut()
