"""Keeps the leases of this process alive, and lets go of those that are not."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from onbelay_server.app.engine.dispatcher import Dispatcher
from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.error import Unavailable
from onbelay_server.domain.state import RunState
from onbelay_server.ports.failpoints import pass_by
from onbelay_server.ports.store import Lease

log = logging.getLogger(__name__)

_RENEWALS_A_LEASE = 3


class Leases:
    """Renews every lease of the owner in one statement, which also says which runs are to stop."""

    def __init__(self, parts: Parts, dispatcher: Dispatcher) -> None:
        self._parts = parts
        self._dispatcher = dispatcher
        self._stray: set[tuple[str, int]] = set()
        """Runs and epochs that were owned and not driven at the last renewal."""

    async def run(self) -> None:
        """Renew for as long as the process lives."""
        while True:
            await self._parts.clock.sleep(self._parts.pace.lease_seconds / _RENEWALS_A_LEASE)
            try:
                await self.renew()
            except Unavailable:
                log.warning("leases not renewed", extra={"action": "renewal_failed"})

    async def renew(self) -> None:
        """One round. The fence is set from before the statement: it ends before the lease does."""
        lease_seconds = self._parts.pace.lease_seconds
        driven = self._dispatcher.executors
        fence_at = self._parts.clock.monotonic() + lease_seconds * 0.9
        until_us = self._parts.clock.now_us() + int(lease_seconds * 1_000_000)
        leases = await self._parts.store.renew(self._parts.owner, until_us=until_us)
        await pass_by("after_lease_renewed")
        held = {(lease.run_id, lease.epoch): lease for lease in leases}
        for executor in driven:
            lease = held.get((executor.run_id, executor.epoch))
            if lease is None:
                executor.recheck()
                continue
            executor.renewed(fence_at, pause_requested=lease.pause_requested)
            if lease.state is RunState.STOPPING:
                executor.stop("stopped")
        await self._let_strays_go(held)

    async def _let_strays_go(self, held: Mapping[tuple[str, int], Lease]) -> None:
        """A claim whose answer was lost, or a last word that could not be written, leaves a run
        that is owned for ever and driven by nobody. One round of patience: a claim that was just
        committed is not driven yet either."""
        stray = {key for key in held if not self._dispatcher.drives(key[0])}
        for run_id, epoch in stray & self._stray:
            log.warning("a run without a driver", extra={"action": "stray_run", "run_id": run_id})
            await self._dispatcher.let_go(run_id, epoch)
        self._stray = stray
