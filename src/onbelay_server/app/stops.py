"""StopRun and StopRuns: a committed stop wins over whatever the run does afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.visibility import controlled, controls
from onbelay_server.domain.agent import Limits
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import NotFound, PermissionDenied
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.domain.stopping import StopOrder, stop_tree
from onbelay_server.ports.store import Place, RunFilter, Store

MAX_STOPS = 500
"""How many runs one StopRuns stops."""
_PAGE = 200
_MORE, _ALL = "more", "all"


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

        What it is about is settled before the first is stopped: a repeated request stops those and
        no others, also when the first was cut off, and answers alike. Raises RequestIdReused."""
        plan = await idempotency.recall(self._store) if idempotency is not None else None
        if plan is None:
            plan = await self._plan(caller, which)
            if idempotency is not None:
                plan = await idempotency.remember(self._store, plan)
        *run_ids, rest = plan.split(",")
        stopped = [one for one in run_ids if await self._is_stopped(caller, one, reason)]
        return Stopped(run_ids=stopped, more=rest == _MORE)

    async def _plan(self, caller: Principal, which: RunFilter) -> str:
        """The ids of what is to be stopped, and whether more is left: one text, to be kept."""
        active = tuple(state for state in RunState if state.is_active)
        states = tuple(state for state in which.states if state in active)
        if which.states and not states:
            return _ALL
        narrowed = replace(which, states=states or active)
        run_ids: list[str] = []
        after: Place | None = None
        while True:
            page = await self._store.list_runs(caller.viewer, narrowed, after=after, limit=_PAGE)
            for run in page:
                if not controls(caller, run):
                    continue
                if len(run_ids) == MAX_STOPS:
                    return ",".join([*run_ids, _MORE])
                run_ids.append(run.id)
            if len(page) < _PAGE:
                return ",".join([*run_ids, _ALL])
            after = Place(page[-1].create_us, page[-1].id)

    async def _is_stopped(self, caller: Principal, run_id: str, reason: str) -> bool:
        """Stop it unless it has ended; whether it was stopped, by this or at the same time."""
        run = await self._store.run(run_id)
        if run is not None and run.state.is_active:
            try:
                run = await self.stop(caller, run_id, reason)
            except (NotFound, PermissionDenied):
                return False
        return run is not None and run.stop is not None
