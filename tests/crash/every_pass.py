"""`python -m tests.crash.every_pass`: the story killed at every pass of every failpoint.

For each failpoint the server is killed at its first pass, in another life at its second, and so on
until a life is through before the pass comes; each must end as the one that nobody killed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.crash.arena import arena
from tests.crash.nursery import Nursery
from tests.crash.story import starts, story
from tests.crash.test_failpoints import KILLS, NeverReached, houses, lived
from tests.effect_service import EffectService

_AT_ONCE = 5


class Lives:
    """Lives of one story, a few at a time."""

    def __init__(self, folder: Path, cradle: Nursery, service: EffectService) -> None:
        self._folder = folder
        self._cradle = cradle
        self._service = service
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self.wanted: tuple[Any, list[str], list[tuple[str, str, str]]] | None = None
        self.broken: list[str] = []

    async def one(self, name: str, kills: list[str]) -> tuple[Any, Any]:
        """Live once."""
        async with (
            self._gate,
            arena(self._cradle, self._folder / name, self._service) as place,
        ):
            return await lived(place, kills)

    async def passes(self, name: str, every: int) -> int:
        """Kill at each pass of a failpoint; how many there were."""
        *before, _ = KILLS.get(name, [""])
        number = 1
        while True:
            try:
                run, log = await self.one(f"{name}-{number}", [*before, f"{name}=crash:{number}"])
            except NeverReached:
                return (number - 1) // every + 1
            except AssertionError as problem:
                self.broken.append(f"{name}, pass {number}: {problem}")
            else:
                if (run.output_json, starts(log), story(log)) != self.wanted:
                    self.broken.append(f"{name}, pass {number}: {run.state} {run.output_json}")
            number += every


async def _all(folder: Path, names: list[str], every: int) -> list[str]:
    async with houses() as (cradle, service):
        lives = Lives(folder, cradle, service)
        run, log = await lives.one("never", [])
        lives.wanted = (run.output_json, starts(log), story(log))
        async for line in _told(lives, names, every):
            print(line, flush=True)
        return lives.broken


async def _told(lives: Lives, names: list[str], every: int) -> AsyncIterator[str]:
    async def count(name: str) -> str:
        return f"{name}: {await lives.passes(name, every)} lives"

    for finished in asyncio.as_completed([count(name) for name in names]):
        yield await finished


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.every_pass", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(KILLS), help="failpoints; default all")
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th pass")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onbelay-passes-") as folder:
        broken = asyncio.run(_all(Path(folder), options.names, options.every))
    print("\n".join(broken) or "every life ended as the one that nobody ended")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
