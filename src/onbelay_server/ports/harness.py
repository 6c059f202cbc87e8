"""How an agent's code is executed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from onbelay_agent.protocol import FromHost, Start, ToHost
from onbelay_server.domain.agent import AgentRevision


class Replay(StrEnum):
    """What a harness can do after its worker is gone.

    Those there are all keep the journal, so nobody asks yet. It is declared for the kinds MODEL and
    HTTP, which may not: the engine must never start a ONCE run a second time."""

    JOURNALED = "JOURNALED"
    """Runs from the top with recorded answers."""
    RESUMABLE = "RESUMABLE"
    """Starts from a checkpoint it handed over."""
    ONCE = "ONCE"
    """Is never started twice: a lost worker is FAILED / WORKER_LOST."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLost:
    """Said once by a harness whose copy is gone without having said Ended."""

    reason: str
    """For the run's readers: `exited with code 9`, `killed by signal 9` …"""
    is_spawn: bool = False
    """It could not be started at all."""


Hear = Callable[[Sequence[ToHost | CopyLost]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to execute, and whom to tell."""

    revision: AgentRevision
    start: Start
    """Sent first, with the journal inside; the harness itself sends Go behind it."""
    begun: Callable[[], None]
    """Called once on the server's loop, within `launch` or later, when there is a place for the
    copy: its time counts from then on. Nothing of it lives before, and it says nothing."""
    hear: Hear
    """Called on the server's loop with what the copy said, in order, several frames at once where
    they came together. The last frame ever is Ended or CopyLost."""
    put_blob: Callable[[bytes], Awaitable[str]]
    """Keeps bytes for the copy; runs on the server's loop."""
    get_blob: Callable[[str], Awaitable[bytes]]
    """Bytes of a blob the run may read; runs on the server's loop. Raises LookupError."""


class Copy(Protocol):
    """One running execution of an agent's code."""

    def send(self, frame: FromHost) -> None:
        """Tell the copy something. Ordered; never blocks; nothing happens when it is gone."""
        ...

    def is_to_blame(self) -> bool:
        """Asked when it gives no pulse: False when another copy blocks the loop both run on."""
        ...

    async def kill(self) -> Sequence[str]:
        """End it now, with every process of it. What cannot be ended is returned by name: threads
        of this process, by the step they run. Idempotent."""
        ...


class Harness(Protocol):
    """Starts copies of agents. One per kind of harness."""

    @property
    def replay(self) -> Replay: ...

    def check(self, revision: AgentRevision) -> str | None:
        """Why this revision cannot be run here, in a sentence, or None."""
        ...

    async def launch(self, launch: Launch) -> Copy:
        """Start a copy, or have it wait until there is a place for it. A failure to start is said
        through `hear` as CopyLost(is_spawn=True)."""
        ...

    async def close(self) -> None:
        """Kill every copy and let go of threads and processes."""
        ...
