"""Copies, a harness and tools whose words are the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from onbelay_agent.protocol import FromHost, Start, ToHost
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.state import Risk
from onbelay_server.ports.harness import CopyLost, Launch, Replay
from onbelay_server.ports.tools import Tool
from tests.patience import until

F = TypeVar("F", bound=FromHost)


class PlayedCopy:
    """A copy whose words are the test's."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.told: list[FromHost] = []
        self.is_killed = False
        self.begin = launch.begun
        """Say that there is a place for it."""
        self.unstoppable: tuple[str, ...] = ()
        """What its kill cannot end."""

    @property
    def start(self) -> Start:
        return self._launch.start

    def say(self, *frames: ToHost | CopyLost) -> None:
        self._launch.hear(frames)

    async def keep(self, content: bytes) -> str:
        return await self._launch.put_blob(content)

    async def heard(self, kind: type[F], count: int = 1) -> F:
        """The `count`th frame of this kind, once it was told."""

        def frames() -> list[F]:
            return [one for one in self.told if isinstance(one, kind)]

        return (await until(lambda: frames() if len(frames()) >= count else None))[count - 1]  # type: ignore[index]

    def send(self, frame: FromHost) -> None:
        self.told.append(frame)

    def is_to_blame(self) -> bool:
        return True

    async def kill(self) -> Sequence[str]:
        self.is_killed = True
        return self.unstoppable


class PlayedHarness:
    """Hands every launched copy to the test."""

    replay = Replay.JOURNALED

    def __init__(self) -> None:
        self.launched: list[PlayedCopy] = []
        self.objection: str | None = None
        self.has_room = True
        """Whether there is a place for a copy that is launched."""
        self.on_launch: Callable[[PlayedCopy], None] = lambda copy: None

    def check(self, revision: AgentRevision) -> str | None:
        return self.objection

    async def launch(self, launch: Launch) -> PlayedCopy:
        copy = PlayedCopy(launch)
        self.launched.append(copy)
        if self.has_room:
            copy.begin()
        self.on_launch(copy)
        return copy

    async def close(self) -> None:
        return None


@dataclass
class PlayedTools:
    """Tools of each risk that answer when the test lets them."""

    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, arguments, idempotency key."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    problem: Exception | None = None

    def get(self, name: str) -> Tool | None:
        risks = {"look": Risk.READ, "write": Risk.WRITE, "upsert": Risk.WRITE}
        if name not in risks:
            return None
        return Tool(
            name=name,
            description="",
            risk=risks[name],
            is_idempotent=name == "upsert",
            input_schema_json="{}",
        )

    def list(self) -> Sequence[Tool]:
        return ()

    async def call(self, name: str, arguments_json: str, *, idempotency_key: str) -> str:
        self.calls.append((name, arguments_json, idempotency_key))
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return '"done"'
