"""What a run's end means for its relatives: a waiting parent goes on, children are stopped."""

from __future__ import annotations

from onbelay_server.domain.change import Entity, NewEvent, Rows
from onbelay_server.domain.event import ChildRunFinished
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.waiting import resolved

MAX_DEPTH = 8
"""How deep a tree of runs may be; its root has depth 0."""
MAX_TREE_RUNS = 1_000
"""How many runs a tree may hold."""


def child_ended(
    rows: Rows, child: Run, now_us: int
) -> tuple[list[Entity], list[Wait], list[NewEvent]]:
    """Tell the parent, in the transaction in which its child ends. Needs the parent's row and its
    waits; a parent that has ended hears nothing."""
    parent = rows.run(child.parent_id) if child.parent_id else None
    if parent is None or parent.state.is_final:
        return [], [], []
    wait = next((one for one in rows.waits(parent.id) if one.child_run_id == child.id), None)
    finished = ChildRunFinished(
        child_run_id=child.id,
        state=child.state,
        output_json=child.output_json,
        output_artifact_id=child.output_artifact_id,
        error=child.error,
    )
    step_id = wait.step_id if wait is not None else ""
    event = NewEvent(parent.id, finished, step_id)
    if wait is None:
        return [parent], [], [event]
    after, moves = resolved(parent, now_us, "a child run ended")
    return [after], [wait], [event, *moves]
