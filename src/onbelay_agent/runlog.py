"""The log of one run in memory: what outlives its copies, for `onbelay_agent.testing`."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onbelay_agent.people import Person
from onbelay_agent.protocol import Emit, Ended, Failure, Intent, Record, Start
from onbelay_agent.tool import ToolDefinition


class Crash(BaseException):
    """The host dies here."""


@dataclass
class RunLog:
    """What is durable of one run, and what the world outside has seen of it."""

    start: Start
    tools: Mapping[str, ToolDefinition]
    people: deque[Person]
    records: list[Record] = field(default_factory=list)
    emits: list[Emit] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    open: dict[str, Intent] = field(default_factory=dict)
    ended: Ended | None = None
    now_us: int = 0
    copies: int = 0
    commits: int = 0
    crash: tuple[int, str] | None = None
    """Die `before` or `after` the commit with this number."""
    deciders: dict[str, Person] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    """How often the work of each step or tool call was begun."""
    repeated: set[str] = field(default_factory=set)
    """Calls whose work was begun again although their end was recorded: always empty, or a bug."""
    outcomes: dict[str, tuple[str | None, Failure | None]] = field(default_factory=dict)
    """What work came to, recorded or not: what a person would find out about an unknown outcome."""
    _places: set[str] = field(default_factory=set)
    _finished: set[str] = field(default_factory=set)

    def commit(
        self,
        records: Sequence[Record] = (),
        emits: Sequence[Emit] = (),
        ended: Ended | None = None,
    ) -> list[Record]:
        """Append all of it or, when this is where the host dies, nothing. Raises Crash."""
        number, self.commits = self.commits, self.commits + 1
        if self.crash == (number, "before"):
            raise Crash
        # Only ends move the clock: a killed run has the times of an undisturbed one.
        self.now_us += 1000 * sum(record.type == "finished" for record in records)
        stamped = [replace(record, time_us=self.now_us) for record in records]
        for record in stamped:
            self.records.append(record)
            if record.type != "started":
                self.open.pop(record.step_id, None)
                self._finished.add(record.step_id)
        for emit in emits:
            if emit.place not in self._places:
                self._places.add(emit.place)
                self.emits.append(emit)
        if ended is not None and ended.outcome != "suspended":
            self.ended = ended
        if self.crash == (number, "after"):
            raise Crash
        return stamped

    def begin(self, step_id: str) -> None:
        """Count that the work of a call begins."""
        self.attempts[step_id] += 1
        if step_id in self._finished:
            self.repeated.add(step_id)

    def watermarks(self) -> dict[str, int]:
        """The highest recorded emit ordinal of each branch."""
        highest: dict[str, int] = {}
        for emit in self.emits:
            branch, _, ordinal = emit.place.rpartition(":emit#")
            highest[branch] = max(highest.get(branch, 0), int(ordinal))
        return highest

    def due(self) -> tuple[str, str | None, Failure | None] | None:
        """The next thing to happen to a waiting run: a person decides, else a timer fires."""
        for step_id in self.open:
            person = self.deciders.get(step_id)
            if person is not None and not person.silent:
                return step_id, *person.decision()
        timers = [
            (json.loads(intent.request_json)["due_us"], step_id)
            for step_id, intent in self.open.items()
            if intent.kind == "TIMER"
        ]
        if not timers:
            return None
        due_us, step_id = min(timers)
        self.now_us = max(self.now_us, due_us)
        return step_id, "null", None
