"""The agent from its first step to its files: approved, rejected, crashed, and fed with rubbish."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import onbelay_server.blueprints.data_cleanup as blueprint
from onbelay_agent.people import Person
from onbelay_agent.testing import TestRun, approve, expire, reject
from onbelay_server.blueprints.data_cleanup import BLUEPRINT, data_cleanup

_EXAMPLE = Path(blueprint.__file__).parent / str(BLUEPRINT["example"]["artifacts"]["input.csv"])
_FILES = {artifact["name"] for artifact in BLUEPRINT["output_artifacts"]}


def small_table() -> bytes:
    """A hundred lines of the example that hold many copies of few sites."""
    lines = list(csv.reader(io.StringIO(_EXAMPLE.read_text(encoding="utf-8"))))
    streets = ("Arthington", "ARTHINGTON", "Wabash", "WABASH")
    kept = [line for line in lines[1:] if any(street in line[3] for street in streets)]
    out = io.StringIO()
    csv.writer(out).writerows([lines[0][:8], *(line[:8] for line in kept)])
    return out.getvalue().encode()


def test_an_approved_run_leaves_its_files() -> None:
    data = small_table()
    run = TestRun(data_cleanup, people=[approve("go on", by="ada")], artifacts={"input.csv": data})
    result = run.execute({})
    assert result.error is None
    assert result.output["outcome"] == "cleaned"
    assert result.output["approved_by"] == "ada"
    assert set(result.artifacts) == _FILES
    assert {item["name"] for item in result.output["artifacts"]} == _FILES
    lines = list(csv.DictReader(io.StringIO(result.artifacts["entities.csv"].decode())))
    assert len(lines) == result.output["rows"]
    assert len({line["cluster_id"] for line in lines}) == result.output["entities"]
    assert result.output["entities"] < result.output["rows"] / 2
    assert b"go on" in result.artifacts["report.html"]
    progress = [event for event in result.events if event.kind == "progress"]
    assert len(progress) >= 10


def test_the_person_sees_the_rules_and_what_they_rest_on() -> None:
    run = TestRun(data_cleanup, people=[approve()], artifacts={"input.csv": small_table()})
    result = run.execute({})
    calls = [
        record
        for record in result.journal.records
        if record.type == "started" and record.kind == "APPROVAL"
    ]
    assert len(calls) == 1
    digest = result.output["rules"]
    assert digest in result.artifacts["report.html"].decode()
    assert json.loads(result.artifacts["lineage.json"])["outputs"]


@pytest.mark.parametrize(
    ("person", "outcome", "words"),
    [
        (reject("not these rules"), "rejected", "not these rules"),
        (expire(), "expired", "obody decided"),
    ],
)
def test_without_a_yes_nothing_is_joined(person: Person, outcome: str, words: str) -> None:
    run = TestRun(data_cleanup, people=[person], artifacts={"input.csv": small_table()})
    result = run.execute({})
    assert result.output["outcome"] == outcome
    assert words in result.output["comment"]
    assert set(result.artifacts) == {"report.html"}
    assert words in result.artifacts["report.html"].decode()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_it_survives_a_crash_at_every_commit() -> None:
    data = b"name,address,phone\n" + b"".join(
        f"Shop {n // 2} Place,{n // 2 + 1} Main St,55{n // 2:05}\n".encode() for n in range(24)
    )
    run = TestRun(data_cleanup, people=[approve()], artifacts={"input.csv": data})
    assert run.crash_everywhere({}).output["outcome"] == "cleaned"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "The file is empty."),
        (b"name,phone\n", "no rows below"),
        (b"a,b\n1.5,2\n3.5,4\n", "nothing to tell entities by"),
        (b"PK\x03\x04", "Excel"),
    ],
)
def test_a_table_that_cannot_be_used_ends_the_run_with_the_reason(data: bytes, reason: str) -> None:
    result = TestRun(data_cleanup, people=[], artifacts={"input.csv": data}).execute({})
    assert result.error is not None
    assert result.error.type.endswith("CleanupError")
    assert reason in result.error.message
    assert not result.artifacts


def test_without_its_table_the_run_ends_with_how_to_give_it() -> None:
    result = TestRun(data_cleanup, people=[], artifacts={}).execute({})
    assert result.error is not None
    assert result.error.type.endswith("CleanupError")
    assert "--file input.csv=" in result.error.message


def test_a_wrong_setting_ends_the_run_with_the_reason() -> None:
    run = TestRun(data_cleanup, artifacts={"input.csv": b"name\nAcme Corp\n"})
    result = run.execute({"rules_off": ["nope"]})
    assert result.error is not None
    assert "no rule is called nope" in result.error.message
    result = run.execute({"columns": {"name": "nope"}})
    assert result.error is not None
    assert "no column 'nope'" in result.error.message


def test_the_definition_agrees_with_the_blueprint() -> None:
    assert data_cleanup.name == BLUEPRINT["name"]
    assert data_cleanup.runs_in == "child"
    assert set(data_cleanup.input_schema["properties"]) == set(
        BLUEPRINT["input_schema"]["properties"]
    )
    for name, described in BLUEPRINT["input_schema"]["properties"].items():
        assert data_cleanup.input_schema["properties"][name].get("default") == described["default"]
    assert _EXAMPLE.exists()
