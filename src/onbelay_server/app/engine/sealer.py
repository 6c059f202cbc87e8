"""Packs logs into ready-made frames in the background, so that reading a long one costs little."""

from __future__ import annotations

from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.error import Unavailable

_AT_ONCE = 16
_LOOK_SECONDS = 2.0


class Sealer:
    """Seals what the store says wants sealing: logs of runs that ended, and long ones."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Seal for as long as the process lives."""
        while True:
            try:
                sealed = await self.seal()
            except Unavailable:
                sealed = 0
            if not sealed:
                await self._parts.clock.sleep(_LOOK_SECONDS)

    async def seal(self) -> int:
        """One round; how many frames were made."""
        store = self._parts.store
        frames = 0
        for run_id in await store.unsealed(_AT_ONCE):
            frames += await store.seal(run_id, through=None)
        return frames
