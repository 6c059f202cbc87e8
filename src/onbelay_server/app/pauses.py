"""PauseRun and ResumeRun."""

from __future__ import annotations

from collections.abc import Callable

from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.visibility import controlled
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.pausing import pause_tree, resume_tree
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run
from onbelay_server.ports.store import Store

Move = Callable[[Rows, Run, str, int], Change[Run]]


class Pauses:
    """Holds runs with everything below them, and lets them go on."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pause(
        self, caller: Principal, run_id: str, idempotency: Idempotency | None = None
    ) -> Run:
        """Pause at the next boundary. Raises NotFound, RUN_NOT_ACTIVE."""
        return await self._move(caller, run_id, idempotency, pause_tree)

    async def resume(
        self, caller: Principal, run_id: str, idempotency: Idempotency | None = None
    ) -> Run:
        """Go on. A run that is not paused is returned as it is. Raises NotFound."""
        return await self._move(caller, run_id, idempotency, resume_tree)

    async def _move(
        self, caller: Principal, run_id: str, idempotency: Idempotency | None, move: Move
    ) -> Run:
        run = controlled(await self._store.run(run_id), caller)

        def unit(rows: Rows, now_us: int) -> Change[Run]:
            current = controlled(rows.run(run_id), caller)
            if idempotency is None:
                return move(rows, current, caller.id, now_us)
            return idempotency.once(
                rows, run_id, now_us, current, lambda: move(rows, current, caller.id, now_us)
            )

        reads = Reads(
            runs=[run_id],
            trees=[run.root_id],
            requests=keys_of(idempotency),
        )
        committed = await self._store.write(reads, unit)
        appended = committed.runs.get(run_id)
        return committed.result if appended is None else appended.run
