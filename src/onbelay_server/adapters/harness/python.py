"""Agents in this process: trusted code that awaits, on the agent loops."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from onbelay_agent.copy import Copy as AgentCopy
from onbelay_agent.definition import AgentDefinition, load
from onbelay_agent.protocol import Ended, FromHost, Go, Stop, ToHost
from onbelay_server.adapters.harness.loops import AgentLoop, AgentLoops
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.ports.catalog import Catalog
from onbelay_server.ports.harness import Copy, CopyLost, Launch, Replay

log = logging.getLogger(__name__)

MAX_ABANDONED_THREADS = 4
_KILL_SECONDS = 1.0
"""A copy that is told to end at once takes 0.9 s where its steps and on_finish functions do not
end: a loop that says nothing by then is blocked."""


class PythonHarness:
    """Runs agents' coroutines on a pool of loops in threads."""

    replay = Replay.JOURNALED

    def __init__(
        self, catalog: Catalog, *, loops: int = 2, on_exhausted: Callable[[], None]
    ) -> None:
        """`on_exhausted`: so many threads were left behind that the process should be replaced."""
        self._catalog = catalog
        self._loops = AgentLoops(loops)
        self._copies: set[_InProcessCopy] = set()
        self._abandoned: list[str] = []
        self._on_exhausted = on_exhausted

    def check(self, revision: AgentRevision) -> str | None:
        if self._catalog.get(revision.blueprint) is None:
            return f"the code {revision.blueprint!r} is not registered on this server"
        return None

    async def launch(self, launch: Launch) -> Copy:
        code = self._catalog.get(launch.revision.blueprint)
        assert code is not None, "checked before"
        definition = load(code.target)
        copy = _InProcessCopy(definition, launch, self._loops.take(), self)
        self._copies.add(copy)
        launch.begun()
        copy.send(launch.start)
        copy.send(Go())
        return copy

    @property
    def left_behind(self) -> Sequence[str]:
        """What would not end, by the names of threads, steps and tasks."""
        return self._abandoned

    async def close(self) -> None:
        self._leave(await asyncio.to_thread(self._loops.close, _KILL_SECONDS))

    def gone(self, copy: _InProcessCopy, left_behind: Sequence[str]) -> None:
        """A copy has ended, leaving this behind."""
        self._copies.discard(copy)
        self._leave(left_behind)

    def blocked(self, agent_loop: AgentLoop) -> None:
        """A loop's thread is inside code that does not return: its other runs go elsewhere."""
        self._loops.replace(agent_loop)
        for copy in [one for one in self._copies if one.runs_on(agent_loop)]:
            copy.lose("another run blocked its agent loop")
        self._leave([agent_loop.name])

    def _leave(self, threads: Sequence[str]) -> None:
        if not threads:
            return
        self._abandoned += threads
        log.error(
            "threads left behind: %s",
            ", ".join(threads),
            extra={"action": "threads_abandoned", "count": len(self._abandoned)},
        )
        if len(self._abandoned) >= MAX_ABANDONED_THREADS:
            self._on_exhausted()


class _InProcessCopy:
    """The service's end of a copy in this process; it is the copy's host as well.

    Frames cross between the two loops in lists, those of all the loop's copies together.
    """

    def __init__(
        self,
        definition: AgentDefinition,
        launch: Launch,
        agent_loop: AgentLoop,
        harness: PythonHarness,
    ) -> None:
        self._launch = launch
        self._agent_loop = agent_loop
        self._harness = harness
        self._server_loop = asyncio.get_running_loop()
        self._to_agent, self._to_server = agent_loop.bridges(self._server_loop)
        self._lock = threading.Lock()
        self._said: list[ToHost] = []
        self._copy: AgentCopy | None = None
        self._abandoned: tuple[str, ...] = ()
        self._ended = asyncio.Event()
        agent_loop.call(self._construct, definition)

    def runs_on(self, agent_loop: AgentLoop) -> bool:
        """Whether it lives on that loop."""
        return self._agent_loop is agent_loop

    # On the service's loop.

    def send(self, frame: FromHost) -> None:
        self._to_agent.post(partial(self._tell, frame))

    def is_to_blame(self) -> bool:
        running = self._agent_loop.running(AgentCopy)
        return running is None or running is self._copy

    def lose(self, reason: str) -> None:
        """It cannot go on, and nobody will hear of it again."""
        if not self._ended.is_set():
            self._finish(())
            self._launch.hear([CopyLost(reason=reason)])

    async def kill(self) -> Sequence[str]:
        if self._ended.is_set():
            return self._abandoned
        self.send(Stop(grace_seconds=0.0, reason="killed"))
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            self._agent_loop.call(self._abandon)
            self._finish(())
            self._abandoned = (self._agent_loop.name,)
            self._harness.blocked(self._agent_loop)
        return self._abandoned

    def _finish(self, left_behind: tuple[str, ...]) -> None:
        self._abandoned = left_behind
        self._ended.set()
        self._harness.gone(self, left_behind)

    def _hear(self, said: list[ToHost]) -> None:
        if self._ended.is_set():
            return  # it was given up for lost: what it says now is no longer its run's
        ended = next((frame for frame in said if isinstance(frame, Ended)), None)
        if ended is not None:
            self._finish(ended.abandoned)
        self._launch.hear(said)

    # On the agent's loop.

    def _construct(self, definition: AgentDefinition) -> None:
        self._copy = AgentCopy(definition, _Host(self), self._agent_loop.loop)

    def _tell(self, frame: FromHost) -> None:
        assert self._copy is not None, "constructed first"
        self._copy.receive(frame)

    def _abandon(self) -> None:
        if self._copy is not None:
            self._copy.abandon()

    def say(self, frame: ToHost) -> None:
        """Called by the copy."""
        with self._lock:
            is_first = not self._said
            self._said.append(frame)
        if is_first:
            self._to_server.post(self._pass_on)

    def _pass_on(self) -> None:
        """On the service's loop: everything said since the last time."""
        with self._lock:
            said, self._said = self._said, []
        self._hear(said)

    async def put_blob(self, content: bytes) -> str:
        future = asyncio.run_coroutine_threadsafe(_keep(self._launch, content), self._server_loop)
        return await asyncio.wrap_future(future)

    async def get_blob(self, sha256: str) -> bytes:
        future = asyncio.run_coroutine_threadsafe(_fetch(self._launch, sha256), self._server_loop)
        return await asyncio.wrap_future(future)


class _Host:
    """What the agent's package is handed: the copy's view of the service."""

    def __init__(self, copy: _InProcessCopy) -> None:
        self._copy = copy

    def send(self, frame: ToHost) -> None:
        self._copy.say(frame)

    async def put_blob(self, content: bytes) -> str:
        return await self._copy.put_blob(content)

    async def get_blob(self, sha256: str) -> bytes:
        return await self._copy.get_blob(sha256)


async def _keep(launch: Launch, content: bytes) -> str:
    return await launch.put_blob(content)


async def _fetch(launch: Launch, sha256: str) -> bytes:
    return await launch.get_blob(sha256)
