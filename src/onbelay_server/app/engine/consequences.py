"""The end of a run with all that follows from it, whoever writes it."""

from __future__ import annotations

from collections.abc import Callable

from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.domain.stopping import concluded, wound_down

LastWord = Callable[[Run, int], tuple[Run, list[NewEvent]]]
"""`decide(run, now_us)`: the run in its new state and the events that say so."""


def reads_of_end(run: Run, *, has_children: bool) -> Reads:
    """The rows a run's end touches: its own, its parent's and, if it has children, its tree."""
    kin = [run.id, run.parent_id] if run.parent_id else [run.id]
    return Reads(runs=kin, open_of=kin, trees=[run.root_id] if has_children else [])


def conclude(
    rows: Rows,
    run: Run,
    decide: LastWord,
    now_us: int,
    limits: Limits,
    unstoppable: tuple[str, ...] = (),
) -> Change[Run]:
    """A run's last word in its epoch. A stop that was committed before it wins."""
    if run.state is RunState.STOPPING:
        after, moves = wound_down(run, now_us, unstoppable=unstoppable)
    else:
        after, moves = decide(run, now_us)
    return with_consequences(rows, after, moves, now_us, limits)


def with_consequences(
    rows: Rows, after: Run, moves: list[NewEvent], now_us: int, limits: Limits
) -> Change[Run]:
    """The change to `after`; where it is final, what it waited for is closed, what it started is
    stopped, and a parent that waits for it goes on."""
    if not after.state.is_final:
        return Change(result=after, put=[after], events=moves)
    return concluded(
        rows,
        after,
        moves,
        now_us,
        grace_us=int(limits.grace_seconds * 1_000_000),
        kill_us=int(limits.kill_seconds * 1_000_000),
    )
