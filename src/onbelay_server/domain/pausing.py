"""How a tree of runs is paused and resumed."""

from __future__ import annotations

from dataclasses import replace

from onbelay_server.domain.change import Change, Entity, NewEvent, Rows
from onbelay_server.domain.lifecycle import check_active, moved
from onbelay_server.domain.run import Pause, Run
from onbelay_server.domain.state import RunState
from onbelay_server.domain.stopping import subtree
from onbelay_server.domain.transition import Trigger


def pause_tree(rows: Rows, run: Run, requested_by: str, now_us: int) -> Change[Run]:
    """Pause a run and everything below it; what runs is paused at its next boundary.

    Twice is harmless. Raises FailedPrecondition (RUN_NOT_ACTIVE) for a run that ended or stops."""
    check_active(run)
    pause = Pause(requested_by=requested_by, request_us=now_us)
    put: list[Entity] = []
    events: list[NewEvent] = []
    answer = run
    for member in subtree(rows.tree(run.root_id), run.id):
        if not member.state.is_active or member.pause is not None:
            continue
        if member.state is RunState.RUNNING:
            after = replace(member, pause=pause, update_us=now_us)
        else:
            after, event = moved(
                member,
                Trigger.PAUSE,
                RunState.PAUSED,
                now_us,
                reason="paused",
                changed_by=requested_by,
                pause=pause,
            )
            events.append(event)
        put.append(after)
        if member.id == run.id:
            answer = after
    return Change(result=answer, put=put, events=events)


def resume_tree(rows: Rows, run: Run, requested_by: str, now_us: int) -> Change[Run]:
    """Let a run and everything below it go on. What is not paused stays as it is."""
    put: list[Entity] = []
    events: list[NewEvent] = []
    answer = run
    for member in subtree(rows.tree(run.root_id), run.id):
        if member.pause is None or member.state.is_final:
            continue
        if member.state is RunState.PAUSED:
            after, event = moved(
                member,
                Trigger.RESUME,
                RunState.QUEUED,
                now_us,
                reason="resumed",
                changed_by=requested_by,
                pause=None,
                error=None,
                ready_us=now_us,
                attempt=0,
            )
            events.append(event)
        else:
            after = replace(member, pause=None, update_us=now_us)
        put.append(after)
        if member.id == run.id:
            answer = after
    return Change(result=answer, put=put, events=events)


def paused(run: Run, now_us: int) -> tuple[Run, NewEvent]:
    """A running run whose pause was asked for reaches a boundary."""
    assert run.pause is not None, "only a pause that was asked for"
    return moved(
        run,
        Trigger.PAUSE,
        RunState.PAUSED,
        now_us,
        reason="paused",
        changed_by=run.pause.requested_by,
        owner=None,
        lease_until_us=None,
    )
