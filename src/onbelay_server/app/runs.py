"""Runs as their readers see them: get, list, rename, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onbelay_server.app.engine.sweeper import Sweeper
from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.visibility import controlled, seen
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import FailedPrecondition, FieldViolation, InvalidArgument
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run, Wait
from onbelay_server.ports.store import Place, RunFilter, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with what it waits for."""

    run: Run
    waits: Sequence[Wait]
    accepts_messages: bool = False
    """Only read where one run is asked for."""


class Runs:
    """Reads and labels runs."""

    def __init__(self, store: Store, sweeper: Sweeper) -> None:
        self._store = store
        self._sweeper = sweeper

    async def get(self, caller: Principal, run_id: str) -> RunView:
        """One run. Raises NotFound."""
        run = seen(await self._store.run(run_id), caller)
        revision = await self._store.revision(run.agent_id, run.agent_revision)
        accepts_messages = revision is not None and revision.accepts_messages
        return replace((await self._views([run]))[0], accepts_messages=accepts_messages)

    async def view(self, run: Run) -> RunView:
        """A run that was read already, with its waits."""
        return (await self._views([run]))[0]

    async def list(
        self, caller: Principal, which: RunFilter, *, after: Place | None, limit: int
    ) -> Sequence[RunView]:
        """What the caller sees of the filter, newest first."""
        runs = await self._store.list_runs(caller.viewer, which, after=after, limit=limit)
        return await self._views(runs)

    async def _views(self, runs: Sequence[Run]) -> Sequence[RunView]:
        waiting = [run.id for run in runs if not run.state.is_final]
        waits = await self._store.waits(waiting) if waiting else {}
        return [RunView(run=run, waits=waits.get(run.id, [])) for run in runs]

    async def update(
        self,
        caller: Principal,
        run_id: str,
        *,
        title: str | None,
        labels: Mapping[str, str] | None,
        idempotency: Idempotency | None = None,
    ) -> RunView:
        """Give a run another title or other labels; None leaves them. Raises NotFound."""

        def update(rows: Rows, now_us: int) -> Change[Run]:
            run = controlled(rows.run(run_id), caller)
            if idempotency is not None and idempotency.answered(rows) is not None:
                return Change(result=run)
            after = replace(
                run,
                title=run.title if title is None else title,
                labels=run.labels if labels is None else dict(labels),
                update_us=now_us,
            )
            if idempotency is None:
                return Change(result=after, put=[after])
            return Change(result=after, put=[after, idempotency.remembered(run_id, now_us)])

        reads = Reads(runs=[run_id], requests=keys_of(idempotency))
        return await self.view((await self._store.write(reads, update)).result)

    async def delete(
        self, caller: Principal, run_id: str, idempotency: Idempotency | None = None
    ) -> int:
        """Remove a root run with its whole tree, events and files; how many runs went.

        Raises NotFound; InvalidArgument (metadata root_run_id) for a run that is not a root;
        FailedPrecondition RUN_NOT_FINISHED (metadata run_id, state: of one that has not ended)."""
        if idempotency is not None:
            earlier = await idempotency.recall(self._store)
            if earlier is not None:
                return int(earlier)
        run = controlled(await self._store.run(run_id), caller)
        if run.root_id != run.id:
            wrong = FieldViolation("run_id", "is not a root: only whole trees are deleted")
            raise InvalidArgument(
                f"run_id {wrong.description}", wrong, metadata={"root_run_id": run.root_id}
            )
        deletion = await self._sweeper.delete_tree(run_id, idempotency)
        if deletion.unfinished is not None:
            raise FailedPrecondition(
                "a run of this tree has not ended: stop it first",
                reason="RUN_NOT_FINISHED",
                metadata={
                    "run_id": deletion.unfinished.id,
                    "state": deletion.unfinished.state.value,
                },
            )
        if not deletion.runs:
            # Another request removed it since it was read.
            seen(None, caller)
        return deletion.runs
