"""StopRun and StopRuns: a committed stop wins over whatever the run does afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.visibility import controlled, controls
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import NotFound
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.domain.stopping import StopOrder, stop_tree
from onbelay_server.ports.store import RunFilter, Store

MAX_STOPS = 500
"""How many runs one StopRuns stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What StopRuns did; `more` when runs of the filter are left for another call."""

    run_ids: list[str]
    more: bool


class Stops:
    """Stops runs with everything below them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def stop(
        self, caller: Principal, run_id: str, reason: str, idempotency: Idempotency | None = None
    ) -> Run:
        """Stop a run and its descendants. One that has ended already is returned as it is.

        Raises NotFound, PermissionDenied (the caller only reads it), REQUEST_ID_REUSED."""
        run = controlled(await self._store.run(run_id), caller)
        revision = await self._store.revision(run.agent_id, run.agent_revision)
        limits = revision.limits if revision is not None else Limits()
        order = StopOrder(
            run_id=run_id,
            requested_by=caller.id,
            reason=reason,
            grace_us=int(limits.grace_seconds * 1_000_000),
            kill_us=int(limits.kill_seconds * 1_000_000),
        )

        def stop(rows: Rows, now_us: int) -> Change[Run]:
            current = controlled(rows.run(run_id), caller)
            if idempotency is None:
                return stop_tree(rows, current, order, now_us)
            return idempotency.once(
                rows, run_id, now_us, current, lambda: stop_tree(rows, current, order, now_us)
            )

        reads = Reads(
            runs=[run_id],
            trees=[run.root_id],
            requests=keys_of(idempotency),
        )
        committed = await self._store.write(reads, stop)
        appended = committed.runs.get(run_id)
        return committed.result if appended is None else appended.run

    async def stop_many(
        self,
        caller: Principal,
        which: RunFilter,
        reason: str,
        idempotency: Idempotency | None = None,
    ) -> Stopped:
        """Stop what the filter matches and the caller may stop, newest first, at most 500.

        A repeated request stops nothing more and answers as the first did."""
        earlier = await idempotency.recall(self._store) if idempotency is not None else None
        if earlier is not None:
            *run_ids, more = earlier.split(",")
            return Stopped(run_ids=[one for one in run_ids if one], more=more == "more")
        stopped = await self._stop_matching(caller, which, reason)
        if idempotency is not None:
            said = [*stopped.run_ids, "more" if stopped.more else "all"]
            await idempotency.remember(self._store, ",".join(said))
        return stopped

    async def _stop_matching(self, caller: Principal, which: RunFilter, reason: str) -> Stopped:
        active = tuple(state for state in RunState if state.is_active)
        states = tuple(state for state in which.states if state in active) or active
        if which.states and not set(which.states) & set(active):
            return Stopped(run_ids=[], more=False)
        narrowed = replace(which, states=states)
        runs = await self._store.list_runs(caller.viewer, narrowed, after=None, limit=MAX_STOPS + 1)
        stopped = []
        for run in runs[:MAX_STOPS]:
            if not controls(caller, run):
                continue
            try:
                await self.stop(caller, run.id, reason)
            except NotFound:
                continue
            stopped.append(run.id)
        return Stopped(run_ids=stopped, more=len(runs) > MAX_STOPS)
