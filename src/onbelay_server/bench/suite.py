"""All rows by name, and running those that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onbelay_server.bench import delivery_rows, growth_rows, latency_rows, machine
from onbelay_server.bench.failure import BenchFailed
from onbelay_server.bench.figure import Figure
from onbelay_server.bench.session import Session

Row = Callable[[Session], list[Figure]]

ROWS: dict[str, Row] = {
    "S1": delivery_rows.s1,
    "S2": delivery_rows.s2,
    "S3": delivery_rows.s3,
    "S4": delivery_rows.s4,
    "S5": latency_rows.s5,
    "S6": latency_rows.s6,
    "S7": latency_rows.s7_and_s8,
    "S8": latency_rows.s7_and_s8,
    "S9": growth_rows.s9,
    "S10": growth_rows.s10,
    "S11": latency_rows.s11,
    "S12": growth_rows.s12,
    "S13": growth_rows.s13,
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run of the bench found, on which machine."""

    machine: dict[str, Any]
    figures: Sequence[Figure]
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why a row has no figures, by its name."""

    @property
    def missed(self) -> list[Figure]:
        """The figures that are worse than their target."""
        return [figure for figure in self.figures if figure.is_met is False]

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "failures": dict(self.failures),
            "figures": [one.as_json() for one in self.figures],
        }


def run_rows(session: Session, names: Sequence[str]) -> Findings:
    """Measure these rows, all of them without names. A row that fails does not keep the others from
    being measured."""
    facts = machine.facts() | {"quick": session.is_quick, "rounds": session.rounds}
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    done: list[Row] = []
    for name in names or ROWS:
        row = ROWS[name]
        if row not in done:
            done.append(row)
            try:
                figures += row(session)
            except BenchFailed as problem:
                failures[name] = str(problem)
                session.say(f"{name} FAILED: {problem}")
    if names:
        figures = [figure for figure in figures if figure.row in names]
    return Findings(facts | {"load_average_after": machine.load_average()}, figures, failures)
