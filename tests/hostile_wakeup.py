"""A wakeup that drops, doubles, delays and reorders hints: nothing may fail for it.

ONBELAY_WAKEUP=hostile puts it into every server that the tests start, `deaf` one that drops all.
`python -m tests.hostile_wakeup` is the command `onbelay` with it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable

import onbelay_server.adapters.wakeup as adapters
from onbelay_server.adapters.wakeup.local import LocalWakeup
from onbelay_server.ports.wakeup import Hear

VARIABLE = "ONBELAY_WAKEUP"


class HostileWakeup:
    """Wakeup in one process; what becomes of each hint is chance, the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._inner = LocalWakeup()
        self._chance = random.Random(seed)
        self._late: list[str] = []

    def wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            fate = self._chance.randrange(4)
            if fate == 0:
                continue
            if fate == 1:
                self._late.append(topic)
                continue
            self._inner.wake([topic] * (fate - 1))
        if self._late and self._chance.randrange(2):
            self._chance.shuffle(self._late)
            self._inner.wake([self._late.pop()])

    def listen(self, hear: Hear) -> Callable[[], None]:
        return self._inner.listen(hear)


class DeafWakeup(LocalWakeup):
    """No hint ever arrives."""

    def wake(self, topics: Iterable[str]) -> None:
        return None


def wanted() -> dict[str, str]:
    """The variable as it is set, to hand on to a process with an environment of its own."""
    return {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}


def everywhere() -> None:
    """Put the wakeup that ONBELAY_WAKEUP names into whatever is imported from now on."""
    match os.environ.get(VARIABLE, ""):
        case "hostile":
            adapters.LocalWakeup = HostileWakeup  # type: ignore[misc,assignment]
        case "deaf":
            adapters.LocalWakeup = DeafWakeup  # type: ignore[misc]
        case "":
            pass
        case unknown:
            raise ValueError(f"{VARIABLE} is hostile or deaf, not {unknown!r}")


if __name__ == "__main__":
    everywhere()
    from onbelay_server.cli.application import main

    main()
