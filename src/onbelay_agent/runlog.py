"""The log of one run in memory: what outlives its copies, for `onbelay_agent.testing`."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onbelay_agent.completion import Completion, expires
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.people import Person
from onbelay_agent.protocol import Emit, Ended, Failure, Intent, Record, Start

_PATIENCE_US = 86_400_000_000
"""How long an operation that expires lasts when it was opened without a limit."""


@dataclass
class OpenedOperation:
    """An operation of a run; `outcome` once it has one."""

    id: str
    name: str
    expire_us: int | None
    completion: Completion | None
    outcome: tuple[str | None, Failure | None] | None = None


@dataclass(frozen=True)
class Due:
    """The next thing to happen to a waiting run: a call of it ends, or an operation does."""

    step_id: str = ""
    ok_json: str | None = None
    failure: Failure | None = None
    operation: OpenedOperation | None = None
    time_us: int | None = None
    """When it happens; None: at once."""


@dataclass(eq=False)
class RunLog:
    """What is durable of one run, and what the world outside has seen of it."""

    definition: AgentDefinition
    start: Start
    parent: RunLog | None = None
    blobs: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    messages: deque[Sequence[dict[str, Any]]] = field(default_factory=deque)
    """What each call that takes messages will be given."""
    records: list[Record] = field(default_factory=list)
    emits: list[Emit] = field(default_factory=list)
    open: dict[str, Intent] = field(default_factory=dict)
    operations: dict[str, OpenedOperation] = field(default_factory=dict)
    children: list[RunLog] = field(default_factory=list)
    ended: Ended | None = None
    now_us: int = 0
    """Its own clock, so that its times do not depend on what runs beside it."""
    copies: int = 0
    is_awake: bool = True
    """Something was recorded that no copy has seen yet."""
    deciders: dict[str, Person] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    """How often the work of each step or tool call was begun."""
    repeated: set[str] = field(default_factory=set)
    """Calls whose work was begun again although their end was recorded: always empty, or a bug."""
    outcomes: dict[str, tuple[str | None, Failure | None]] = field(default_factory=dict)
    """What work came to, recorded or not: what a person would find out about an unknown outcome."""
    _places: set[str] = field(default_factory=set)
    _finished: set[str] = field(default_factory=set)

    def add(
        self,
        records: Sequence[Record] = (),
        emits: Sequence[Emit] = (),
        intents: Sequence[Intent] = (),
    ) -> list[Record]:
        """Append what is committed; the records with their times."""
        # Only ends move the clock: a killed run has the times of an undisturbed one.
        self.now_us += 1000 * sum(record.type == "finished" for record in records)
        stamped = [replace(record, time_us=self.now_us) for record in records]
        self.open.update((intent.id, intent) for intent in intents if not intent.cancelled)
        for record in stamped:
            self.records.append(record)
            if record.type != "started":
                self.open.pop(record.step_id, None)
                self._finished.add(record.step_id)
                self.is_awake = True
        for emit in emits:
            if emit.place not in self._places:
                self._places.add(emit.place)
                self.emits.append(emit)
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

    def descendants(self) -> Iterator[RunLog]:
        """Children, their children, and so on."""
        for child in self.children:
            yield child
            yield from child.descendants()

    def waits_for(self, kind: str, key: str, value: str) -> list[str]:
        """Open calls of a kind that name `value` as what they wait for."""
        return [
            step_id
            for step_id, intent in self.open.items()
            if intent.kind == kind and json.loads(intent.request_json).get(key) == value
        ]

    def operation(self, number: int, request: dict[str, Any], says: Completion | None) -> str:
        """Open an operation; its id."""
        seconds = request["expires_seconds"]
        expire_us = None if seconds is None else self.now_us + round(seconds * 1e6)
        if expire_us is None and says is not None and says.says == "expires":
            expire_us = self.now_us + _PATIENCE_US
        operation_id = f"op_{self.start.run_id}.{number}"
        self.operations[operation_id] = OpenedOperation(
            operation_id, request["name"], expire_us, says
        )
        return operation_id

    def due_at_once(self) -> Due | None:
        """A person decides, else an operation is completed, else a message comes."""
        for step_id in self.open:
            person = self.deciders.get(step_id)
            if person is not None and not person.silent:
                ok_json, failure = person.decision()
                return Due(step_id, ok_json, failure)
        for operation in self.operations.values():
            says = operation.completion
            if operation.outcome is None and says is not None and says.says != "expires":
                return Due(operation=operation)
        for step_id, intent in self.open.items():
            if intent.kind == "MESSAGES" and any(self.messages):
                return Due(step_id, "")
        return None

    def due_later(self) -> Due | None:
        """The next timer that fires or operation that expires."""
        waits = [
            Due(step_id, "null", time_us=json.loads(intent.request_json)["due_us"])
            for step_id, intent in self.open.items()
            if intent.kind == "TIMER"
        ]
        waits += [
            Due(operation=operation, time_us=operation.expire_us)
            for operation in self.operations.values()
            if operation.outcome is None and operation.expire_us is not None
        ]
        return min(waits, key=lambda due: due.time_us or 0, default=None)

    def complete(self, operation: OpenedOperation) -> list[Record]:
        """An operation ends; the ends of the calls that wait for it."""
        says = operation.completion
        if says is None:
            says = expires()
        operation.outcome = says.outcome(operation.id)
        ids = self.waits_for("OPERATION", "operation_id", operation.id)
        return [finished(step_id, *operation.outcome) for step_id in ids]

    def next_messages(self) -> str:
        """What the next call that takes messages is given, as JSON."""
        return json.dumps(list(self.messages.popleft()) if self.messages else [])


def finished(
    step_id: str, ok_json: str | None, failure: Failure | None, content_sha256: str = ""
) -> Record:
    """The end of a call, recorded by somebody other than its copy."""
    return Record(
        type="finished",
        step_id=step_id,
        time_us=0,
        ok_json=ok_json,
        failure=failure,
        content_sha256=content_sha256,
    )
