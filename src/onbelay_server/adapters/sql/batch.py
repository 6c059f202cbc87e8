"""One transaction of several units, as steps without I/O: read, decide in order, write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from onbelay_server.adapters.sql.agent_rows import agent_from, revision_from
from onbelay_server.adapters.sql.database import Steps
from onbelay_server.adapters.sql.kept import Kept
from onbelay_server.adapters.sql.open_rows import message_from, operation_from, wait_from
from onbelay_server.adapters.sql.rows import (
    Inputs,
    Row,
    approval_from,
    artifact_from,
    inputs_from,
    request_from,
    run_from,
)
from onbelay_server.adapters.sql.statements import Statements
from onbelay_server.adapters.unit import Outcome, Unit
from onbelay_server.adapters.working_set import Conflict, WorkingSet
from onbelay_server.domain.error import Aborted
from onbelay_server.domain.run import Run
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.failpoints import reach


@dataclass(slots=True)
class Written:
    """A transaction that went through, if its commit does."""

    outcomes: list[Outcome]
    rows: WorkingSet
    read: list[Run]
    """Runs that had to be fetched."""


@dataclass(slots=True)
class Batch:
    """What all transactions of a writer share."""

    statements: Statements
    codec: EventCodec
    clock: Clock
    kept: Kept
    ordinal: int = 0
    """The last number given to a wait."""

    def steps(self, units: Sequence[Unit[Any]]) -> Steps[Written]:
        """Run the units in their order on one set of rows. A unit that refuses, or fails, has an
        exception as its outcome and leaves nothing."""
        rows = WorkingSet()
        now_us = yield from self._now()
        read = yield from self._load(units, rows)
        outcomes: list[Outcome] = []
        for unit in units:
            try:
                outcomes.append(unit.run(rows, now_us, self.codec))
            except Conflict:
                outcomes.append(taken())
            except Exception as error:  # noqa: BLE001 - the unit's own outcome, raised to its caller
                outcomes.append(error)
        # A clock that stands still or steps back must not give a number twice.
        first = max(self.ordinal + 1, now_us * 1024)
        self.ordinal = first + len(rows.changes.waits.new)
        for statement in self.statements.writes(rows.changes, first):
            reach("inside_batch")
            yield statement
        return Written(outcomes, rows, read)

    def _now(self) -> Steps[int]:
        asked = self.statements.sql.now
        if asked is None:
            return self.clock.now_us()
        found = yield asked
        return int(found[0][0])

    def _load(self, units: Sequence[Unit[Any]], rows: WorkingSet) -> Steps[list[Run]]:
        known = self.statements
        read: list[Run] = []
        run_ids, roots, opened = _names(units)
        if run_ids or roots:
            read = yield from self._load_runs(run_ids, roots, rows)
        if roots:
            opened.update((run_id, None) for root in roots for run_id in rows.trees.get(root, {}))
        if opened:
            yield from self._load_open(opened, rows)
        if approvals := _union(unit.reads.approvals for unit in units):
            rows.add(map(approval_from, (yield known.approvals.of_ids(approvals))))
        if operations := _union(unit.reads.operations for unit in units):
            rows.add(map(operation_from, (yield known.operations.of_ids(operations))))
        if artifacts := _union(unit.reads.artifacts for unit in units):
            rows.add(map(artifact_from, (yield known.artifacts.of_ids(artifacts))))
        if saved_by := _union(unit.reads.artifacts_of for unit in units):
            rows.add(map(artifact_from, (yield known.artifacts_of.of_ids(saved_by))))
        yield from self._load_agents(units, rows)
        if keys := _union(unit.reads.requests for unit in units):
            named = [(key.tenant, key.principal, key.method, key.request_id) for key in keys]
            rows.add(map(request_from, (yield known.requests.of(named))))
        return read

    def _load_open(self, run_ids: Iterable[str], rows: WorkingSet) -> Steps[None]:
        known = self.statements
        missing: list[str] = []
        for run_id in run_ids:
            kept = self.kept.open_of(run_id)
            if kept is None:
                missing.append(run_id)
            else:
                rows.add(kept.rows)
            rows.whole.add(run_id)
        if missing:
            rows.add(map(wait_from, (yield known.waits.of_ids(missing))))
            rows.add(map(approval_from, (yield known.pending.of_ids(missing))))
            rows.add(map(operation_from, (yield known.open_operations.of_ids(missing))))
            rows.add(map(message_from, (yield known.messages.of_ids(missing))))

    def _load_agents(self, units: Sequence[Unit[Any]], rows: WorkingSet) -> Steps[None]:
        known, kept = self.statements, self.kept
        ids, names, revisions = [], [], []
        for agent_id in _union(unit.reads.agents for unit in units):
            if (agent := kept.agent(agent_id)) is not None:
                rows.add((agent,))
            else:
                ids.append(agent_id)
        for name in _union(unit.reads.agent_names for unit in units):
            if (agent := kept.agent_named(*name)) is not None:
                rows.add((agent,))
            else:
                names.append(name)
        for key in _union(unit.reads.revisions for unit in units):
            if (revision := kept.revision(*key)) is not None:
                rows.add((revision,))
            else:
                revisions.append(key)
        if ids:
            rows.add(map(agent_from, (yield known.agents.of_ids(ids))))
        if names:
            rows.add(map(agent_from, (yield known.agents_named.of(names))))
        if revisions:
            rows.add(map(revision_from, (yield known.revisions.of(revisions))))

    def _load_runs(
        self, run_ids: dict[str, None], roots: dict[str, None], rows: WorkingSet
    ) -> Steps[list[Run]]:
        wanted = dict(run_ids)
        while True:
            if roots:
                found = yield self.statements.tree_ids.of_ids(roots)
                more = {row[0]: None for row in found if row[0] not in rows.runs}
                # A run born while its tree's locks were waited for is seen when asked again.
                if not more and not wanted:
                    return [run for run in rows.runs.values() if run is not None]
                wanted.update(more)
            missing = []
            for run_id in wanted:
                run = self.kept.runs.run(run_id)
                if run is not None:
                    rows.add((run,))
                else:
                    missing.append(run_id)
            read: list[Run] = []
            if missing:
                read = yield from self._fetch_runs(missing)
                rows.add(read)
            wanted = {}
            if not roots or self.statements.sql.now is None:
                return read

    def _fetch_runs(self, run_ids: Sequence[str]) -> Steps[list[Run]]:
        found: list[Row] = yield self.statements.runs.of_ids(run_ids)
        inputs: dict[str, Inputs] = {}
        unknown: list[str] = []
        for row in found:
            kept = self.kept.runs.inputs(row[0])
            if kept is not None:
                inputs[row[0]] = kept
            else:
                unknown.append(row[0])
        if unknown:
            for row in (yield self.statements.inputs.of_ids(unknown)):
                inputs[row[0]] = inputs_from(row[1:])
        return [run_from(row, inputs[row[0]]) for row in found]


def taken() -> Aborted:
    """The outcome of a unit whose keys are taken whenever it is tried."""
    return Aborted("another request was first; try again", retry_after_seconds=0.1)


def _names(
    units: Sequence[Unit[Any]],
) -> tuple[dict[str, None], dict[str, None], dict[str, None]]:
    runs: dict[str, None] = {}
    roots: dict[str, None] = {}
    opened: dict[str, None] = {}
    for unit in units:
        reads = unit.reads
        runs.update(dict.fromkeys(reads.runs))
        if reads.trees:
            roots.update(dict.fromkeys(reads.trees))
        if reads.open_of:
            opened.update(dict.fromkeys(reads.open_of))
    return runs, roots, opened


def _union(names: Iterable[Sequence[Any]]) -> dict[Any, None]:
    return {name: None for some in names for name in some}
