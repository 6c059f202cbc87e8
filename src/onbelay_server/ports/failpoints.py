"""Named places where a test may let the process die, wait or be slow.

Not a Protocol like its neighbours: engine and adapters pass failpoints alike, and `ports` is what
both may import. Handing each of them an object would put it into the hot paths; so, off, which they
always are outside of tests, a place costs one look at an empty mapping. The wiring arms them with
what ONBELAY_FAILPOINTS says, a list of `name=action` divided by commas:

    before_commit=crash:3                at the third pass, as a power cut would
    before_commit=crash:0.01/7           at each pass with this probability; 7 is the seed
    after_tool_sent_before_recorded=delay:0.2      0.2 s, at each pass
    after_lease_renewed=delay:5@2                  5 s, at the second pass
    after_claim_before_launch=pause:/tmp/go@1      until that file exists

What stands behind `@`, or behind `crash:`, says at which passes: a whole number for one of them, a
decimal fraction for chance.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

NAMES = {
    "inside_batch": "between the statements of a transaction",
    "before_commit": "a transaction is written and not committed",
    "after_commit_before_wake": "a transaction is committed and nobody knows it yet",
    "after_claim_before_launch": "a run is claimed and its agent not started",
    "after_lease_renewed": "the leases are renewed and the executors not told",
    "after_intent_before_sent": "a tool call is recorded as about to be sent and not sent",
    "after_tool_sent_before_recorded": "a tool call came back and is not recorded",
    "after_step_finished_before_recorded": "a step of the agent ended and is not recorded",
    "after_park_before_suspend": "a run is recorded as waiting and its copy not told",
    "after_end_before_recorded": "the agent returned or raised and that is not recorded",
    "after_stop_before_told": "a stop is committed and the copy not told",
    "after_due_before_recorded": "a wait's time has come and its end is not recorded",
    "after_orphan_found": "a run without an owner was found and is not requeued",
}
"""Every failpoint, and what has and has not happened there."""

_POLL_SECONDS = 0.02


class FailpointError(Exception):
    """Failpoints that cannot be armed as written; the text is one line for the operator."""


@dataclass(slots=True)
class _Failpoint:
    action: str
    seconds: float = 0.0
    path: str = ""
    at_pass: int | None = None
    chance: float | None = None
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self) -> bool:
        """Count a pass, from whichever thread; whether it is one that counts."""
        with self.lock:
            self.passes += 1
            if self.chance is not None:
                return self.dice.random() < self.chance
            return self.at_pass is None or self.passes == self.at_pass


_armed: dict[str, _Failpoint] = {}


def reach(name: str) -> None:
    """Pass a failpoint. What it waits for blocks the calling thread."""
    if not _armed:
        return
    point = _armed.get(name)
    if point is None or not point.is_due():
        return
    match point.action:
        case "crash":
            _crash()
        case "delay":
            time.sleep(point.seconds)
        case _:
            while not Path(point.path).exists():
                time.sleep(_POLL_SECONDS)


async def pass_by(name: str) -> None:
    """Pass a failpoint on an event loop, which it does not block."""
    if not _armed:
        return
    point = _armed.get(name)
    if point is None or not point.is_due():
        return
    match point.action:
        case "crash":
            _crash()
        case "delay":
            await asyncio.sleep(point.seconds)
        case _:
            while not await asyncio.to_thread(Path(point.path).exists):  # noqa: ASYNC110 - a file
                await asyncio.sleep(_POLL_SECONDS)


def arm(text: str) -> None:
    """Arm what the text names, and disarm everything else. Raises FailpointError."""
    points = dict(_parsed(part.strip()) for part in text.split(",") if part.strip())
    _armed.clear()
    _armed.update(points)


def _parsed(part: str) -> tuple[str, _Failpoint]:
    name, _, rest = part.partition("=")
    action, _, what = rest.partition(":")
    if name not in NAMES:
        raise FailpointError(f"{name!r} is no failpoint; there are {', '.join(NAMES)}")
    point = _Failpoint(action)
    try:
        _set(point, part, what)
    except ValueError:
        raise FailpointError(f"{part!r}: a number is missing or is none") from None
    return name, point


def _set(point: _Failpoint, part: str, what: str) -> None:
    match point.action:
        case "crash":
            when = what or "1"
        case "delay":
            seconds, _, when = what.partition("@")
            point.seconds = float(seconds)
        case "pause":
            point.path, _, when = what.partition("@")
            if not point.path:
                raise FailpointError(f"{part!r}: pause needs the file it waits for")
        case _:
            raise FailpointError(f"{part!r}: a failpoint can crash, delay or pause")
    if "." in when:
        chance, _, seed = when.partition("/")
        point.chance, point.dice = float(chance), random.Random(seed)
    elif when:
        point.at_pass = int(when)


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
