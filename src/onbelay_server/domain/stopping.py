"""How runs are stopped: all of a tree in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from onbelay_server.domain.change import Change, Entity, NewEvent, Rows
from onbelay_server.domain.family import child_ended
from onbelay_server.domain.lifecycle import ended, moved
from onbelay_server.domain.message import Message
from onbelay_server.domain.run import Run, StopRequest, Wait
from onbelay_server.domain.state import RunState
from onbelay_server.domain.transition import Trigger
from onbelay_server.domain.waiting import closed


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """Who wants what stopped, and how patiently."""

    run_id: str
    requested_by: str
    reason: str
    grace_us: int
    kill_us: int


@dataclass(slots=True)
class _Draft:
    """A change that is being put together."""

    put: list[Entity] = field(default_factory=list)
    delete: list[Wait | Message] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)


def stop_tree(rows: Rows, run: Run, order: StopOrder, now_us: int) -> Change[Run]:
    """Stop a run and everything below it. A run that ended, or is stopping already, stays as it is.

    Needs the run's tree and its parent."""
    draft = _Draft()
    answer = run
    for member in subtree(rows.tree(run.root_id), run.id):
        after = _stop(rows, draft, member, order, now_us)
        if member.id == run.id:
            answer = after
    if answer is not run and answer.state.is_final:
        _tell_parent(rows, draft, answer, now_us)
    return Change(result=answer, put=draft.put, delete=draft.delete, events=draft.events)


def concluded(
    rows: Rows, after: Run, moves: list[NewEvent], now_us: int, *, grace_us: int, kill_us: int
) -> Change[Run]:
    """A run's end with all that follows from it: what it waited for is closed, what it started is
    stopped, and a parent that waits for it goes on. `moves` are its last events.

    Needs the run's open rows, its parent with its open rows and, if it has children, its tree."""
    draft = _Draft()
    _close(rows, draft, after.id, "the run ended", now_us)
    draft.put.append(after)
    draft.events += moves
    if after.child_count:
        order = StopOrder(
            run_id=after.id,
            requested_by=after.starter,
            reason="its parent ended",
            grace_us=grace_us,
            kill_us=kill_us,
        )
        for member in subtree(rows.tree(after.root_id), after.id)[1:]:
            _stop(rows, draft, member, order, now_us)
    _tell_parent(rows, draft, after, now_us)
    return Change(result=after, put=draft.put, delete=draft.delete, events=draft.events)


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


def _stop(rows: Rows, draft: _Draft, member: Run, order: StopOrder, now_us: int) -> Run:
    if not member.state.is_active:
        return member
    _close(rows, draft, member.id, "the run was stopped", now_us)
    stop = StopRequest(
        requested_by=order.requested_by,
        reason=order.reason,
        request_us=now_us,
        grace_until_us=now_us + order.grace_us,
        kill_us=now_us + order.grace_us + order.kill_us,
        root_id=order.run_id,
    )
    if member.owner is not None:
        # A worker holds it: something of it may still be at work.
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
    draft.put.append(after)
    draft.events += moves
    return after


def _close(rows: Rows, draft: _Draft, run_id: str, reason: str, now_us: int) -> None:
    """Everything the run waited for, or kept for its agent, loses its object."""
    put, events = closed(rows, run_id, reason, now_us)
    draft.put += put
    draft.events += events
    draft.delete += [*rows.waits(run_id), *rows.unread(run_id)]


def _tell_parent(rows: Rows, draft: _Draft, child: Run, now_us: int) -> None:
    put, delete, events = child_ended(rows, child, now_us)
    draft.put += put
    draft.delete += delete
    draft.events += events
