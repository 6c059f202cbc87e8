"""Runs of mixed agents under load while their server is killed with -9 every few seconds.

`python -m tests.soak --minutes 10` (or `make soak MINUTES=10`) prints what happened and ends with
1 when a promise was broken. The same seed makes the same choices.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpc import StatusCode

from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.ports import failpoints
from tests.agents.mixed import expected
from tests.checker import Final
from tests.crash.arena import Arena, arena
from tests.crash.nursery import nursery
from tests.crash.person import Person
from tests.effect_service import effect_service
from tests.recorder import Recorder

_AT_ONCE = 24
"""Runs in flight at a time."""
_CLIENTS = 4
_PATIENCE_SECONDS = 60.0
_SHORT_LIFE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that was started, and what was done to it."""

    seed: int
    length: int
    fate: str
    """`left` alone, `stopped` or `paused` on its way."""


@dataclass(slots=True)
class Report:
    """What a soak came to."""

    kills: int = 0
    by_failpoint: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    events: int = 0
    effects: int = 0
    unknown: int = 0
    crash_loops: int = 0
    """Runs in whose tree one was given up, its server having died too often before it got on."""
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        died = ", ".join(f"{name} {count}" for name, count in sorted(self.by_failpoint.items()))
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        lines = [
            f"{self.seconds:.0f} s, {self.kills} kills ({died})",
            f"{sum(self.states.values())} runs: {states}; {self.events} events",
            f"{self.effects} effects outside, {self.unknown} of unknown outcome asked about, "
            f"{self.crash_loops} runs given up as crash loops",
            *self.broken,
            "every promise held" if not self.broken else f"{len(self.broken)} broken",
        ]
        return "\n".join(lines)


class Soak:
    """One soak over one database."""

    def __init__(self, place: Arena, *, seed: int, runs: int, seconds: float) -> None:
        self._place = place
        self._dice = random.Random(seed)
        self._seed = seed
        self._least_runs = runs
        self._until = time.monotonic() + seconds
        self._planned: dict[str, Planned] = {}
        self._clients: list[Recorder] = []
        self._report = Report()

    async def run(self) -> Report:
        """Start, load, kill; then judge what is left."""
        begun = time.monotonic()
        await self._place.start()
        self._clients = [self._place.another_client() for _ in range(_CLIENTS)]
        for client in self._clients:
            client.patience_seconds = _PATIENCE_SECONDS
        person = Person(self._place.client, self._place.service)
        living = asyncio.create_task(person.live())
        killing = asyncio.create_task(self._kill_for_ever())
        try:
            await self._load()
        finally:
            for task in (killing, living):
                task.cancel()
            ends = await asyncio.gather(killing, living, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        self._report.unknown = len(person.unknown)
        await self._place.kill()
        await self._judge()
        self._report.seconds = time.monotonic() - begun
        return self._report

    # ---- load ----------------------------------------------------------------------------------

    async def _load(self) -> None:
        """Runs, until there were enough and the time is over; each is followed to its end."""
        gate = asyncio.Semaphore(_AT_ONCE)
        number = 0
        async with asyncio.TaskGroup() as group:
            while number < self._least_runs or time.monotonic() < self._until:
                number += 1
                await gate.acquire()
                task = group.create_task(self._one(number))
                task.add_done_callback(lambda _: gate.release())

    async def _one(self, number: int) -> None:
        dice = random.Random(self._seed * 1_000_003 + number)
        planned = Planned(
            seed=dice.randrange(2**31),
            length=dice.randint(2, 9),
            fate=dice.choices(("left", "stopped", "paused"), (7, 2, 1))[0],
        )
        agent = "mixed-child" if dice.random() < 0.1 else "mixed"
        values = {
            "seed": planned.seed,
            "length": planned.length,
            "service": self._place.service.address,
        }
        client = self._clients[number % _CLIENTS]
        run_id = await client.start(agent, values, request_id=f"soak-{number}")
        self._planned[run_id] = planned
        following = asyncio.create_task(client.follow(run_id, f"reader-{number}"))
        if planned.fate != "left":
            await asyncio.sleep(dice.expovariate(1.0))
        if planned.fate == "stopped":
            await client.stop(run_id)
        elif planned.fate == "paused":
            await _pause_and_resume(client, run_id, dice.uniform(0.1, 2.0))
        await following

    # ---- killing -------------------------------------------------------------------------------

    async def _kill_for_ever(self) -> None:
        """A server lives for seconds, or until it reaches the failpoint it is armed with."""
        name = ""
        while time.monotonic() < self._until:
            begun = time.monotonic()
            hit = await self._place.died(self._dice.uniform(1.5, 6.0))
            await self._place.kill()
            self._report.kills += 1
            self._report.by_failpoint[name if hit else "at any time"] += 1
            name = self._dice.choice(["", *failpoints.NAMES])
            if time.monotonic() - begun < _SHORT_LIFE_SECONDS:
                name = ""  # a run is given up after five lives in which it came to nothing
            await self._place.start(f"{name}=crash:{self._dice.randint(1, 40)}" if name else "")
        # What is still under way comes to its end undisturbed.
        await self._place.kill()
        await self._place.start()

    # ---- judging -------------------------------------------------------------------------------

    async def _judge(self) -> None:
        final = await self._place.final()
        effects = await self._place.service.effects()
        report = self._report
        report.states = Counter(run.state.value for run in final.runs.values())
        report.events = sum(len(log) for log in final.logs.values())
        report.effects = sum(effects.counts.values())
        report.broken = await self._place.broken(final)
        for run_id, run in final.runs.items():
            if not run.state.is_final:
                report.broken.append(f"{run_id}: still {run.state}")
            if problem := self._wrong_end(run, final):
                report.broken.append(f"{run_id}: {problem}")

    def _wrong_end(self, run: Run, final: Final) -> str:
        """What is wrong with how the run ended, if anything."""
        planned = self._planned.get(run.id)
        if planned is None:
            return ""
        tree = [one for one in final.runs.values() if one.root_id == run.id]
        if any(one.error and one.error.reason is FailureReason.CRASH_LOOP for one in tree):
            self._report.crash_loops += 1
            return ""
        match run.state:
            case RunState.SUCCEEDED:
                wanted = expected(planned.seed, planned.length)
                if json.loads(run.output_json or "null") != wanted:
                    return f"it gave {run.output_json}, not {wanted}"
            case RunState.STOPPED:
                if planned.fate != "stopped":
                    return "nobody stopped it"
            case _:
                return f"it ended {run.state}: {run.error}"
        return ""


async def _pause_and_resume(client: Recorder, run_id: str, seconds: float) -> None:
    pause = runs_pb.PauseRunRequest(run_id=run_id)
    await _insist(lambda: client.exchange("PauseRun", pause))
    await asyncio.sleep(seconds)
    await client.call("ResumeRun", runs_pb.ResumeRunRequest(run_id=run_id))


async def _insist(call: Callable[[], Awaitable[Any]]) -> None:
    """Until a server has answered, whatever it says: the run may have ended."""
    away = (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
    while (await call()).code in away:  # noqa: ASYNC110 - there is nothing to be told by
        await asyncio.sleep(0.1)


async def soak(state_dir: Path, *, seed: int, runs: int, seconds: float) -> Report:
    """Soak for so long, and at least so many runs."""
    async with (
        nursery() as cradle,
        effect_service() as service,
        arena(cradle, state_dir, service, options=["--max-children", "2"]) as place,
    ):
        return await Soak(place, seed=seed, runs=runs, seconds=seconds).run()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=100, help="at least so many")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--keep", type=Path, help="folder to keep the database and the log in")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="onbelay-soak-") as folder:
        report = asyncio.run(
            soak(
                options.keep or Path(folder),
                seed=options.seed,
                runs=options.runs,
                seconds=options.minutes * 60,
            )
        )
    print(report)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
