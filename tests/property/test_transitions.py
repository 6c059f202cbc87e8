"""Any sequence of decisions about a run stays within the table of its states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from onbelay_server.domain.error import Refusal
from onbelay_server.domain.event import RunFinished, StateChanged
from onbelay_server.domain.lifecycle import claimed, ended, given_back, worker_lost
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState, StepKind
from onbelay_server.domain.stopping import StopOrder, stop_tree, wound_down
from onbelay_server.domain.transition import TABLE, IllegalMove, Trigger
from onbelay_server.domain.waiting import parked, resolved
from tests.contract.entities import make_run, make_wait

Moved = tuple[Run, list[Any]]
KINDS = st.lists(st.sampled_from(StepKind), min_size=1, max_size=3)
MOVES = frozenset((a, b) for origins, targets in TABLE.values() for a in origins for b in targets)


class OneRun:
    """The rows of a tree of one."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def tree(self, root_id: str) -> list[Run]:
        return [self._run]

    def waits(self, run_id: str) -> list[Any]:
        return []

    def pending_approvals(self, run_id: str) -> list[Any]:
        return []

    def open_operations(self, run_id: str) -> list[Any]:
        return []

    def unread(self, run_id: str) -> list[Any]:
        return []

    def run(self, run_id: str) -> Run | None:
        return self._run if run_id == self._run.id else None


def _stop(run: Run, now_us: int) -> Moved:
    order = StopOrder(run_id=run.id, requested_by="u", reason="", grace_us=1, kill_us=1)
    change = stop_tree(OneRun(run), run, order, now_us)  # type: ignore[arg-type]
    return change.result, list(change.events)


def _one(decide: Callable[[Run, int], tuple[Run, Any]]) -> Callable[[Run, int], Moved]:
    def decided(run: Run, now_us: int) -> Moved:
        after, event = decide(run, now_us)
        return after, [event]

    return decided


DECISIONS: dict[str, Callable[[Run, int], Moved]] = {
    "claim": _one(lambda run, at: claimed(run, "w", at + 9, at)),
    "give back": _one(lambda run, at: given_back(run, at, "")),
    "lose": lambda run, at: worker_lost(run, at, ""),
    "resolve": lambda run, at: resolved(run, at, ""),
    "return": lambda run, at: ended(run, Trigger.RETURN, RunState.SUCCEEDED, at),
    "raise": lambda run, at: ended(run, Trigger.RAISE, RunState.FAILED, at),
    "stop": _stop,
    "wind down": lambda run, at: wound_down(run, at) if run.stop else (run, []),
}


@given(
    st.lists(st.one_of(st.sampled_from(sorted(DECISIONS)), KINDS), max_size=40),
    st.integers(0, 5),
)
def test_no_sequence_of_decisions_leaves_the_table(
    chosen: list[str | list[StepKind]], patience: int
) -> None:
    run = make_run("r")
    ends = 0
    now_us = run.create_us
    for one in chosen:
        now_us += 200_000_000 if patience else 1
        try:
            if isinstance(one, str):
                after, events = DECISIONS[one](run, now_us)
            else:
                waits = [make_wait("r", str(n), kind=kind) for n, kind in enumerate(one)]
                after, event = parked(run, waits, now_us)
                events = [event]
        except (IllegalMove, Refusal):
            continue
        assert not run.state.is_final or (after, events) == (run, []) or after.state == run.state
        if after.state is not run.state:
            assert (run.state, after.state) in MOVES
            changes = [e.payload for e in events if isinstance(e.payload, StateChanged)]
            assert [(c.from_state, c.to_state) for c in changes] == [(run.state, after.state)]
        ends += sum(isinstance(event.payload, RunFinished) for event in events)
        assert after.epoch >= run.epoch
        assert (after.owner is None) == (after.state not in (RunState.RUNNING, RunState.STOPPING))
        assert (after.finish_us is not None) == after.state.is_final
        run = after
    assert ends == (1 if run.state.is_final else 0)
