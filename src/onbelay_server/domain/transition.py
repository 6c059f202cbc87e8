"""The run's state machine: one table, drawn in docs/state-machine.md and tested against it."""

from __future__ import annotations

from enum import StrEnum

from onbelay_server.domain.state import FINAL, WAITING, RunState

QUEUED, RUNNING, REVIEWING, PAUSED = (
    RunState.QUEUED,
    RunState.RUNNING,
    RunState.REVIEWING,
    RunState.PAUSED,
)
STOPPING, STOPPED, SUCCEEDED, FAILED = (
    RunState.STOPPING,
    RunState.STOPPED,
    RunState.SUCCEEDED,
    RunState.FAILED,
)


class Trigger(StrEnum):
    """What moves a run on."""

    CLAIM = "claim"
    """A worker takes it once its ready time has come. That each tenant gets its share is the
    dispatcher's doing, not a condition."""
    PARK = "park"
    """Every branch waits for somebody else; the lease goes back."""
    RESOLVE = "resolve"
    """One of the things it waits for came."""
    REVIEW = "review"
    """The result needs a person's acceptance. Nothing triggers it yet, nor what follows."""
    ACCEPT = "accept"
    """The result was accepted."""
    PAUSE = "pause"
    """PauseRun at a boundary, or a replay that diverged and is held."""
    RESUME = "resume"
    """ResumeRun."""
    STOP = "stop"
    """StopRun: at once when nothing of the run lives, by way of STOPPING otherwise."""
    WOUND_DOWN = "wound down"
    """Nothing of a stopping run lives any more."""
    LOSE = "lose"
    """The lease ran out, or the worker gave it back in a drain."""
    EXHAUST = "exhaust"
    """Its attempts are spent."""
    BREACH = "breach"
    """A limit in time or money was passed."""
    RETURN = "return"
    """The agent returned."""
    RAISE = "raise"
    """The agent raised, or cannot be run."""


_UNFINISHED = frozenset(RunState) - FINAL
_ACTIVE = frozenset(state for state in RunState if state.is_active)

TABLE: dict[Trigger, tuple[frozenset[RunState], frozenset[RunState]]] = {
    Trigger.CLAIM: (frozenset({QUEUED}), frozenset({RUNNING})),
    Trigger.PARK: (frozenset({RUNNING}), WAITING),
    Trigger.RESOLVE: (WAITING | {REVIEWING}, frozenset({QUEUED})),
    Trigger.REVIEW: (frozenset({RUNNING}), frozenset({REVIEWING})),
    Trigger.ACCEPT: (frozenset({REVIEWING}), frozenset({SUCCEEDED})),
    Trigger.PAUSE: (WAITING | {QUEUED, REVIEWING, RUNNING}, frozenset({PAUSED})),
    Trigger.RESUME: (frozenset({PAUSED}), frozenset({QUEUED})),
    Trigger.STOP: (_UNFINISHED, frozenset({STOPPING, STOPPED})),
    Trigger.WOUND_DOWN: (frozenset({STOPPING}), frozenset({STOPPED})),
    Trigger.LOSE: (frozenset({RUNNING}), frozenset({QUEUED})),
    Trigger.EXHAUST: (frozenset({QUEUED, RUNNING}), frozenset({FAILED})),
    Trigger.BREACH: (_ACTIVE, frozenset({FAILED})),
    Trigger.RETURN: (frozenset({RUNNING}), frozenset({SUCCEEDED})),
    Trigger.RAISE: (frozenset({RUNNING}), frozenset({FAILED})),
}
"""Trigger → the states it applies to, the states it may lead to."""


class IllegalMove(RuntimeError):
    """A decision tried a move the table does not have: a bug of ours, never a caller's fault."""


def check(origin: RunState, trigger: Trigger, target: RunState) -> None:
    """Raise IllegalMove unless the table allows it."""
    origins, targets = TABLE[trigger]
    if origin not in origins or target not in targets:
        raise IllegalMove(f"{trigger}: {origin} → {target}")
