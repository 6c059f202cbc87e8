"""One call the agent asked for, from its id to its release."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from onbelay_agent.branch import Branch
from onbelay_agent.journal import Asked
from onbelay_agent.protocol import CallKind, Intent, Record, Reopened
from onbelay_agent.task import RunFuture, RunTimer
from onbelay_agent.work import StepPlan

WAITS_ON_OTHERS: frozenset[CallKind] = frozenset(
    ("APPROVAL", "QUESTION", "TIMER", "CHILD", "OPERATION", "MESSAGES")
)
"""Kinds during which neither the copy nor its host has work in flight."""

FOR_EVER_US = 253_402_300_799 * 1_000_000
"""When a timer that never fires is due: at the end of the year 9999."""


@dataclass(slots=True, eq=False)
class Call:
    """A context call or a timer. `state`: new (not awaited yet), asked, begun, over (released, or
    dropped without a trace) or cancelled (its result, if one comes, is skipped in its turn)."""

    id: str
    kind: CallKind
    name: str
    digest: str
    request_json: str
    decode: Callable[[Record, bytes | None], Any] | None = None
    """The value of a result, given the blob it names, if any. None: the agent gets None."""
    plan: StepPlan | None = None
    """STEP only."""
    upload: bytes | None = None
    """ARTIFACT_SAVE only: kept by the host before the call is recorded."""
    future: RunFuture | None = None
    timer: RunTimer | None = None
    state: Literal["new", "asked", "begun", "over", "cancelled"] = "new"
    stage: int = 0
    attempt: int = 1
    at_once: bool = False
    """The host answers it as it records it: nobody else is waited for."""
    recorded: bool = False
    """Its start stood in the log when this copy began."""
    committed: bool = False
    """Its batch is recorded."""
    held: bool = False
    """A person decides what became of it."""

    @classmethod
    def of_timer(cls, timer: RunTimer, branch: Branch) -> Call:
        """The durable wait of a timer that was set in this branch."""
        due_us = FOR_EVER_US if timer.when() == math.inf else round(timer.when() * 1e6)
        request = f'{{"due_us":{due_us}}}'
        digest = hashlib.sha256(request.encode()).hexdigest()
        return cls(branch.next_id("timer", "wait"), "TIMER", "wait", digest, request, timer=timer)

    @property
    def once(self) -> bool:
        """Whether it must not be run again once it may have run."""
        return self.plan is not None and self.plan.once

    @property
    def waits_on_others(self) -> bool:
        """Whether nothing of it is in flight in this copy or its host."""
        return self.held or (self.kind in WAITS_ON_OTHERS and not self.at_once)

    def asked(self) -> Asked:
        """What a journal is compared with."""
        return Asked(self.id, self.kind, self.digest, self.stage)

    def intent(self) -> Intent:
        """What is recorded of it before it happens."""
        return Intent(
            id=self.id,
            kind=self.kind,
            name=self.name,
            digest=self.digest,
            request_json=self.request_json,
            cancelled=self.state == "cancelled",
        )

    def reopened(self) -> Reopened:
        """What is recorded when this copy begins it again."""
        return Reopened(step_id=self.id, attempt=self.attempt, once=self.once)
