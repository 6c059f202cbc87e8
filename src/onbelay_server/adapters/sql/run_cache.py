"""Runs as they were last committed, kept by whoever is the only one to write them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from onbelay_server.adapters.sql.rows import Inputs
from onbelay_server.domain.run import Run

MOST_RUNS = 2_000
MOST_INPUT_CHARACTERS = 16_384


class RunCache:
    """Spares reading a row that this process wrote itself.

    Where the database belongs to one process, whole runs are kept; elsewhere only what never
    changes of them. Changed between transactions only, so a thread inside one may read it. Large
    inputs and outputs are not kept, which bounds it to some tens of megabytes.
    """

    def __init__(self, *, keeps_runs: bool) -> None:
        self._keeps_runs = keeps_runs
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._inputs: OrderedDict[str, Inputs] = OrderedDict()

    def run(self, run_id: str) -> Run | None:
        return self._runs.get(run_id)

    def inputs(self, run_id: str) -> Inputs | None:
        return self._inputs.get(run_id)

    def put(self, run: Run) -> None:
        """Remember a run as it was committed."""
        if len(run.input_json) + len(run.output_json or "") > MOST_INPUT_CHARACTERS:
            self.drop(run.id)
        elif self._keeps_runs:
            self._runs[run.id] = run
            self._runs.move_to_end(run.id)
            if len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
        elif run.id not in self._inputs:
            self._inputs[run.id] = (run.input_json, run.input_artifacts)
            if len(self._inputs) > MOST_RUNS:
                self._inputs.popitem(last=False)

    def extend_leases(self, owner: str, until_us: int) -> None:
        """The owner's leases were renewed by a statement of their own."""
        for run in [run for run in self._runs.values() if run.owner == owner]:
            self._runs[run.id] = replace(run, lease_until_us=until_us)

    def drop(self, run_id: str) -> None:
        self._runs.pop(run_id, None)
        self._inputs.pop(run_id, None)

    def clear(self) -> None:
        self._runs.clear()
        self._inputs.clear()
