"""How the bench judges what it measured, and how it prints it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from onbelay_server.bench import machine, suite
from onbelay_server.bench.failure import BenchFailed
from onbelay_server.bench.figure import Figure, Target
from onbelay_server.bench.report import draw, markdown, table
from onbelay_server.bench.suite import ROWS, Findings, run_rows
from onbelay_server.cli import bench
from onbelay_server.cli.outcome import CommandFailed, ExitCode


def figure(**given: Any) -> Figure:
    usual: dict[str, Any] = {
        "row": "S1",
        "variant": "full",
        "what": "events",
        "unit": "events/s",
        "samples": [100.0, 300.0, 200.0],
        "limit": "raw1",
        "limit_samples": [400.0, 100.0, 90.0],
        "target": Target(bound=1.0),
    }
    return Figure(**(usual | given))


def test_a_figure_is_the_ratio_of_two_medians() -> None:
    assert (figure().value, figure().limit_value, figure().ratio) == (200.0, 100.0, 2.0)


@pytest.mark.parametrize(
    ("target", "is_met"),
    [
        (Target(bound=2.0), True),
        (Target(bound=2.1), False),
        (Target(bound=2.0, is_most=True), True),
        (Target(bound=1.9, is_most=True), False),
        (None, None),
    ],
)
def test_a_target_is_the_least_or_the_most(target: Target | None, is_met: bool | None) -> None:
    assert figure(target=target).is_met is is_met


def test_without_a_limit_the_figure_itself_is_judged() -> None:
    assert figure(limit="", limit_samples=(), target=Target(bound=200)).is_met is True
    assert figure(limit="", limit_samples=(), target=Target(bound=201)).is_met is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert figure(samples=()).is_met is None
    assert figure(limit_samples=()).is_met is None


FINDINGS = Findings(
    {"cpu": "a cpu"},
    [figure(), figure(row="S2", target=Target(bound=3)), figure(row="S13", samples=())],
)


def test_the_table_names_row_ratio_target_and_verdict() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(table(FINDINGS))
    met, missed, empty = out.getvalue().splitlines()[1:]
    assert re.search(r"S1 +events +full +200 events/s +raw1 100 +2 +≥ 1 +met", met)
    assert "MISSED" in missed
    assert "–" in empty
    assert "met" not in empty
    assert [one.row for one in FINDINGS.missed] == ["S2"]


def test_the_table_of_a_page_has_as_many_cells_in_every_line() -> None:
    head, rule, *lines = markdown(FINDINGS).splitlines()
    assert {line.count("|") for line in (head, rule, *lines)} == {9}
    assert lines[1].endswith("| ≥ 3 | MISSED |")


def test_json_holds_the_samples_and_can_be_read_again() -> None:
    read = json.loads(json.dumps(FINDINGS.as_json()))
    assert read["machine"] == {"cpu": "a cpu"}
    assert read["figures"][0]["samples"] == [100.0, 300.0, 200.0]
    assert [one["met"] for one in read["figures"]] == [True, False, None]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(FINDINGS, tmp_path / "bench.svg")
    assert "<svg" in (tmp_path / "bench.svg").read_text()


def test_the_rows_are_s1_to_s13() -> None:
    assert list(ROWS) == [f"S{number}" for number in range(1, 14)]


def test_rows_measured_together_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def both(_session: Any) -> list[Figure]:
        measured.append(1)
        return [figure(row="S7"), figure(row="S8")]

    monkeypatch.setattr(machine, "facts", dict)
    monkeypatch.setitem(suite.ROWS, "S7", both)
    monkeypatch.setitem(suite.ROWS, "S8", both)
    session: Any = type("Quick", (), {"is_quick": True, "rounds": 1})()
    assert [one.row for one in run_rows(session, ["S7", "S8"]).figures] == ["S7", "S8"]
    assert measured == [1]
    assert [one.row for one in run_rows(session, ["S8"]).figures] == ["S8"]


def test_an_unknown_row_is_a_mistake_of_usage() -> None:
    ended = CliRunner().invoke(bench.app, ["--only", "S99"]).exception
    assert isinstance(ended, CommandFailed)
    assert ended.code is ExitCode.USAGE


def test_a_wrong_delivery_fails_its_row_and_the_command_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_session: Any) -> list[Figure]:
        raise BenchFailed("9 events came, 10 were due")

    monkeypatch.setattr(machine, "facts", dict)
    monkeypatch.setitem(suite.ROWS, "S1", fail)
    monkeypatch.setitem(suite.ROWS, "S2", lambda _session: [figure(row="S2")])
    session: Any = type("Quick", (), {"is_quick": True, "rounds": 1, "say": print})()
    findings = run_rows(session, ["S1", "S2"])
    assert [one.row for one in findings.figures] == ["S2"]
    with pytest.raises(CommandFailed, match="S1: 9 events came") as failed:
        bench._complain(findings)
    assert failed.value.code is ExitCode.FAILED


def test_a_missed_target_does_not_fail_the_command() -> None:
    bench._complain(FINDINGS)
