"""A host whose answers are the test's."""

from __future__ import annotations

import asyncio
from typing import Any

from onbelay_agent.copy import Copy
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.protocol import Begin, Begun, Ended, Go, Parked, Start, ToHost


class ScriptedHost:
    """Records every batch, answers nothing else; the test says the rest."""

    def __init__(self, definition: AgentDefinition) -> None:
        self.frames: list[ToHost] = []
        self.over = asyncio.Event()
        self.begun = asyncio.Event()
        self.parked = asyncio.Event()
        self.copy = Copy(definition, self, asyncio.get_running_loop())

    def start(self) -> None:
        self.copy.receive(
            Start(run_id="r", agent="a", attempt=1, start_us=0, input_json="{}", seed="s")
        )
        self.copy.receive(Go())

    def send(self, frame: ToHost) -> None:
        self.frames.append(frame)
        if isinstance(frame, Begin):
            self.copy.receive(Begun(stage=frame.stage))
            self.begun.set()
        elif isinstance(frame, Parked):
            self.parked.set()
        elif isinstance(frame, Ended):
            self.over.set()

    async def put_blob(self, content: bytes) -> str:
        raise AssertionError("nothing large here")

    async def get_blob(self, sha256: str) -> bytes:
        raise LookupError(sha256)

    async def ended(self) -> Ended:
        await self.over.wait()
        last = self.frames[-1]
        assert isinstance(last, Ended)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, others
        return last

    def of(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]
