"""The state machine, move by move, and the page that draws it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from onbelay_server.domain.state import FINAL, WAITING, RunState
from onbelay_server.domain.transition import TABLE, IllegalMove, Trigger, check

PAGE = (Path(__file__).parents[2] / "docs" / "state-machine.md").read_text()
MOVES = list(itertools.product(RunState, Trigger, RunState))


def test_every_trigger_is_in_the_table() -> None:
    assert set(TABLE) == set(Trigger)


@pytest.mark.parametrize("trigger", Trigger)
def test_only_the_moves_of_the_table_pass(trigger: Trigger) -> None:
    origins, targets = TABLE[trigger]
    for origin, target in itertools.product(RunState, RunState):
        if origin in origins and target in targets:
            check(origin, trigger, target)
        else:
            with pytest.raises(IllegalMove):
                check(origin, trigger, target)


def test_nothing_leaves_a_final_state() -> None:
    assert not any(origins & FINAL for origins, _ in TABLE.values())


def test_every_state_can_be_reached_and_every_other_can_be_left() -> None:
    reached = {RunState.QUEUED}.union(*(targets for _, targets in TABLE.values()))
    assert reached == set(RunState)
    left = frozenset().union(*(origins for origins, _ in TABLE.values()))
    assert left == frozenset(RunState) - FINAL


def test_a_stopping_run_ends_stopped_and_nothing_else() -> None:
    after = {
        target
        for trigger, (origins, targets) in TABLE.items()
        if RunState.STOPPING in origins and trigger is not Trigger.STOP
        for target in targets
    }
    assert after == {RunState.STOPPED}


def test_the_page_holds_the_table() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| ([A-Z_, ]+) \| ([A-Z_, ]+) \|$", PAGE, re.MULTILINE)
    written = {
        Trigger(name): (_states(origins), _states(targets)) for name, origins, targets in rows
    }
    assert written == TABLE


def test_the_drawing_shows_every_move_but_those_that_are_repeated_stops() -> None:
    drawn = set()
    for origin, target, triggers in re.findall(r"(\w+) --> (\w+): ([a-z, ]+)$", PAGE, re.MULTILINE):
        for trigger in triggers.split(", "):
            for one, other in itertools.product(_drawn(origin), _drawn(target)):
                check(one, Trigger(trigger), other)
                drawn.add((one, Trigger(trigger), other))
    possible = {
        (origin, trigger, target)
        for origin, trigger, target in MOVES
        if origin in TABLE[trigger][0] and target in TABLE[trigger][1]
    }
    # Only what a worker holds is STOPPING first, and a run that is STOPPING stays so.
    hidden = {move for move in possible if move[1] is Trigger.STOP}
    assert possible - hidden <= drawn
    assert {move[0] for move in drawn & hidden} == {move[0] for move in hidden} - {
        RunState.STOPPING
    }


def test_the_page_explains_every_state() -> None:
    assert {state for state in RunState if f"`{state.value}`" in PAGE} == set(RunState)


def _states(text: str) -> frozenset[RunState]:
    return frozenset(RunState(name) for name in text.split(", "))


def _drawn(name: str) -> frozenset[RunState]:
    return WAITING if name == "WAITING" else frozenset({RunState(name)})
