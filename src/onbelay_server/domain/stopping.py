"""How a run is stopped: all of its tree, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onbelay_server.domain.change import Change, Entity, NewEvent, Rows
from onbelay_server.domain.lifecycle import ended, moved
from onbelay_server.domain.run import Run, StopRequest, Wait
from onbelay_server.domain.state import RunState
from onbelay_server.domain.transition import Trigger
from onbelay_server.domain.waiting import voided


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """Who wants what stopped, and how patiently."""

    run_id: str
    requested_by: str
    reason: str
    grace_us: int
    kill_us: int


def is_alive(run: Run) -> bool:
    """Whether something of the run may still be at work: a worker holds it."""
    return run.owner is not None


def stop_tree(rows: Rows, run: Run, order: StopOrder, now_us: int) -> Change[Run]:
    """Stop a run and everything below it. One that ended, or is stopping already, stays so."""
    put: list[Entity] = []
    delete: list[Wait] = []
    events: list[NewEvent] = []
    answer = run
    for member in subtree(rows.tree(run.root_id), run.id):
        if member.state.is_final or member.state is RunState.STOPPING:
            continue
        approvals, lost = voided(
            member.id, rows.pending_approvals(member.id), "the run was stopped", now_us
        )
        stop = StopRequest(
            requested_by=order.requested_by,
            reason=order.reason,
            request_us=now_us,
            grace_until_us=now_us + order.grace_us,
            kill_us=now_us + order.grace_us + order.kill_us,
            root_id=run.id,
        )
        if is_alive(member):
            after, change = moved(
                member,
                Trigger.STOP,
                RunState.STOPPING,
                now_us,
                reason=order.reason,
                changed_by=order.requested_by,
                stop=stop,
            )
            moves = [change]
        else:
            after, moves = ended(
                member,
                Trigger.STOP,
                RunState.STOPPED,
                now_us,
                reason=order.reason,
                changed_by=order.requested_by,
                stop=stop,
            )
        put += [after, *approvals]
        delete += rows.waits(member.id)
        events += [*lost, *moves]
        if member.id == run.id:
            answer = after
    return Change(result=answer, put=put, delete=delete, events=events)


def wound_down(
    run: Run,
    now_us: int,
    *,
    unstoppable: tuple[str, ...] = (),
    output_json: str | None = None,
    output_artifact_id: str = "",
) -> tuple[Run, list[NewEvent]]:
    """Nothing of a stopping run lives any more: it is STOPPED, whatever its agent returned."""
    assert run.stop is not None, "only a committed stop leads to STOPPING"
    stop = replace(run.stop, unstoppable=unstoppable)
    return ended(
        run,
        Trigger.WOUND_DOWN,
        RunState.STOPPED,
        now_us,
        reason=run.stop.reason,
        changed_by=run.stop.requested_by,
        output_json=output_json,
        output_artifact_id=output_artifact_id,
        stop=stop,
    )


def subtree(tree: list[Run], top_id: str) -> list[Run]:
    """The run named and all its descendants, parents before their children."""
    children: dict[str | None, list[Run]] = {}
    for run in tree:
        children.setdefault(run.parent_id, []).append(run)
    below = [run for run in tree if run.id == top_id]
    for run in below:
        below.extend(children.get(run.id, ()))
    return below
