"""Decisions about one run: claimed, given back, lost, ended, parked, resolved, stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from onbelay_server.app.engine.consequences import with_consequences
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import NewEvent
from onbelay_server.domain.error import Changed, Lost
from onbelay_server.domain.event import RunFinished, StateChanged
from onbelay_server.domain.lifecycle import (
    BACKOFF_US,
    claimed,
    ended,
    fence,
    given_back,
    worker_lost,
)
from onbelay_server.domain.run import Run, StopRequest, Wait, waiting_state
from onbelay_server.domain.state import FINAL, FailureReason, RunState, StepKind
from onbelay_server.domain.stopping import StopOrder, stop_tree, wound_down
from onbelay_server.domain.transition import IllegalMove, Trigger
from onbelay_server.domain.waiting import parked, resolved
from tests.contract.entities import T0, make_approval, make_run, make_wait

ORDER = StopOrder(run_id="top", requested_by="user:ada", reason="no", grace_us=10, kill_us=5)


class PlainRows:
    """The rows a decision reads."""

    def __init__(self, *runs: Run, waits: Any = (), approvals: Any = ()) -> None:
        self._runs, self._waits, self._approvals = runs, waits, approvals

    def tree(self, root_id: str) -> list[Run]:
        return [run for run in self._runs if run.root_id == root_id]

    def waits(self, run_id: str) -> list[Wait]:
        return [wait for wait in self._waits if wait.run_id == run_id]

    def pending_approvals(self, run_id: str) -> list[Any]:
        return [one for one in self._approvals if one.run_id == run_id]

    def open_operations(self, run_id: str) -> list[Any]:
        return []

    def unread(self, run_id: str) -> list[Any]:
        return []

    def run(self, run_id: str) -> Run | None:
        return next((run for run in self._runs if run.id == run_id), None)


def running(**more: Any) -> Run:
    values = {"state": RunState.RUNNING, "owner": "w", "epoch": 3, "lease_until_us": T0 + 9}
    return make_run("r", **(values | more))


def test_a_claim_begins_an_epoch() -> None:
    after, event = claimed(make_run("r", epoch=2, attempt=1), "w", T0 + 30, T0 + 1)
    assert (after.state, after.owner, after.epoch, after.attempt) == (RunState.RUNNING, "w", 3, 2)
    assert (after.lease_until_us, after.start_us) == (T0 + 30, T0 + 1)
    assert isinstance(event.payload, StateChanged)
    again, _ = claimed(replace(after, state=RunState.QUEUED), "w", T0 + 60, T0 + 31)
    assert again.start_us == T0 + 1


@pytest.mark.parametrize("state", sorted(set(RunState) - {RunState.QUEUED}))
def test_only_a_queued_run_is_claimed(state: RunState) -> None:
    with pytest.raises(Changed):
        claimed(make_run("r", state=state), "w", T0, T0)


def test_no_run_is_claimed_before_its_time() -> None:
    with pytest.raises(Changed):
        claimed(make_run("r", ready_us=T0 + 1), "w", T0, T0)


@pytest.mark.parametrize(("owner", "epoch"), [("other", 3), ("w", 2), ("w", 4), ("", 3)])
def test_the_fence(owner: str, epoch: int) -> None:
    assert fence(running(), "w", 3) == running()
    with pytest.raises(Lost):
        fence(running(), owner, epoch)
    with pytest.raises(Lost):
        fence(None, "w", 3)


def test_a_run_given_back_has_lost_no_attempt() -> None:
    after, _ = given_back(running(attempt=1), T0 + 5, "drain")
    assert (after.state, after.attempt, after.ready_us) == (RunState.QUEUED, 0, T0 + 5)
    assert (after.owner, after.lease_until_us, after.epoch) == (None, None, 3)


def test_attempts_wait_longer_and_longer_and_end() -> None:
    waits = []
    for attempt in range(1, Limits().max_attempts):
        after, _ = worker_lost(running(attempt=attempt), T0, "gone")
        assert (after.state, after.attempt) == (RunState.QUEUED, attempt)
        waits.append(after.ready_us - T0)
    assert waits == sorted(waits)
    assert set(waits) <= set(BACKOFF_US)
    last, events = worker_lost(running(attempt=Limits().max_attempts), T0, "gone")
    assert last.error is not None
    assert (last.state, last.error.reason) == (RunState.FAILED, FailureReason.CRASH_LOOP)
    assert isinstance(events[-1].payload, RunFinished)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_run_never_moves(state: RunState) -> None:
    for trigger in Trigger:
        with pytest.raises(IllegalMove):
            ended(make_run("r", state=state), trigger, RunState.FAILED, T0)


def test_an_end_is_told_last() -> None:
    after, events = ended(running(), Trigger.RETURN, RunState.SUCCEEDED, T0 + 1, output_json="1")
    assert [type(event.payload) for event in events] == [StateChanged, RunFinished]
    assert (after.finish_us, after.owner, after.output_json) == (T0 + 1, None, "1")


KINDS: list[tuple[set[StepKind], RunState]] = [
    ({StepKind.TIMER}, RunState.BLOCKED),
    ({StepKind.CHILD, StepKind.OPERATION}, RunState.BLOCKED),
    ({StepKind.QUESTION, StepKind.TIMER}, RunState.WAITING_FOR_INPUT),
    ({StepKind.MESSAGES}, RunState.WAITING_FOR_INPUT),
    ({StepKind.QUESTION, StepKind.APPROVAL}, RunState.WAITING_FOR_APPROVAL),
    ({StepKind.TOOL, StepKind.TIMER}, RunState.WAITING_FOR_APPROVAL),
    ({StepKind.STEP}, RunState.WAITING_FOR_APPROVAL),
]


@pytest.mark.parametrize(("kinds", "state"), KINDS)
def test_the_first_wait_that_applies_names_the_state(kinds: set[StepKind], state: RunState) -> None:
    waits = [make_wait("r", kind.value, kind=kind) for kind in kinds]
    assert waiting_state(waits) is state
    after, _ = parked(running(attempt=2), waits, T0)
    assert (after.state, after.owner, after.attempt) == (state, None, 0)


def test_a_resolved_wait_queues_a_parked_run_and_only_that() -> None:
    after, events = resolved(make_run("r", state=RunState.BLOCKED), T0 + 5, "it came")
    assert (after.state, after.ready_us, len(events)) == (RunState.QUEUED, T0 + 5, 1)
    for state in set(RunState) - FINAL:
        if not state.is_waiting:
            same, none = resolved(make_run("r", state=state), T0 + 5, "it came")
            assert (same.state, none) == (state, [])


def test_nothing_stays_open_in_a_run_that_ended() -> None:
    run = running()
    rows = PlainRows(waits=[make_wait("r", "a")], approvals=[make_approval("apr", run)])
    after, moves = ended(run, Trigger.RAISE, RunState.FAILED, T0)
    change = with_consequences(rows, after, moves, T0, Limits())  # type: ignore[arg-type]
    assert [
        type(event.payload).__name__ for event in change.events if isinstance(event, NewEvent)
    ] == [
        "ApprovalVoided",
        "StateChanged",
        "RunFinished",
    ]
    assert len(change.delete) == 1
    going, event = given_back(run, T0, "drain")
    change = with_consequences(rows, going, [event], T0, Limits())  # type: ignore[arg-type]
    assert change.put == [going]


# ---- stopping ------------------------------------------------------------------------------------


def stopped(*runs: Run, top: str = "top", **more: Any) -> dict[str, Run]:
    """Each run after its tree's part below `top` was stopped."""
    rows = PlainRows(*runs, **more)
    by_id = {run.id: run for run in runs}
    change = stop_tree(rows, by_id[top], replace(ORDER, run_id=top), T0 + 1)  # type: ignore[arg-type]
    assert change.result == next((r for r in change.put if r == change.result), by_id[top])
    return by_id | {row.id: row for row in change.put if isinstance(row, Run)}


def test_a_stop_takes_everything_below_and_nothing_else() -> None:
    tree = [
        make_run("top", root_id="root", parent_id="root", depth=1, state=RunState.BLOCKED),
        make_run("root", root_id="root", state=RunState.BLOCKED),
        make_run(
            "low", root_id="root", parent_id="top", depth=2, owner="w", state=RunState.RUNNING
        ),
        make_run("done", root_id="root", parent_id="top", depth=2, state=RunState.SUCCEEDED),
        make_run("lower", root_id="root", parent_id="low", depth=3),
        make_run("beside", root_id="root", parent_id="root", depth=1),
    ]
    after = stopped(*tree)
    assert {name: run.state for name, run in after.items()} == {
        "root": RunState.BLOCKED,
        "top": RunState.STOPPED,
        "low": RunState.STOPPING,
        "done": RunState.SUCCEEDED,
        "lower": RunState.STOPPED,
        "beside": RunState.QUEUED,
    }
    stop = after["lower"].stop
    assert stop is not None
    assert (stop.root_id, stop.grace_until_us, stop.kill_us) == ("top", T0 + 11, T0 + 16)


@pytest.mark.parametrize("state", [*sorted(FINAL), RunState.STOPPING])
def test_what_has_ended_or_is_stopping_stays_as_it_is(state: RunState) -> None:
    run = make_run("top", state=state)
    assert stopped(run) == {"top": run}


@pytest.mark.parametrize("state", sorted(set(RunState) - FINAL - {RunState.STOPPING}))
def test_a_stop_ends_at_once_what_nobody_drives(state: RunState) -> None:
    for owner, wanted in ((None, RunState.STOPPED), ("w", RunState.STOPPING)):
        after = stopped(make_run("top", state=state, owner=owner))["top"]
        assert (after.state, after.owner) == (wanted, owner)


def test_a_stop_wins_over_what_the_agent_returned() -> None:
    stop = StopRequest(
        requested_by="user:ada", reason="no", request_us=T0, grace_until_us=T0, kill_us=T0
    )
    run = running(state=RunState.STOPPING, stop=stop)
    after, events = wound_down(run, T0 + 1, unstoppable=("thread",), output_json="1")
    assert (after.state, after.output_json, after.error) == (RunState.STOPPED, "1", None)
    finished = events[-1].payload
    assert isinstance(finished, RunFinished)
    assert finished.not_stopped == ("thread",)
