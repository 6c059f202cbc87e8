"""Proof and report: complete, bound to what is applied, and safe whatever the data says."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from onbelay_server.blueprints.data_cleanup import BLUEPRINT
from onbelay_server.blueprints.data_cleanup.lineage import lineage_picture
from onbelay_server.blueprints.data_cleanup.overview import overview
from onbelay_server.blueprints.data_cleanup.page import question, rules_markdown
from onbelay_server.blueprints.data_cleanup.proposal import proposal
from onbelay_server.blueprints.data_cleanup.report import report_html
from onbelay_server.blueprints.data_cleanup.resolution import Resolution, Settings, resolve
from onbelay_server.blueprints.data_cleanup.rules import RULE_NAMES

_HOSTILE = "<script>alert(1)</script>"


def hostile_table() -> bytes:
    rows = [
        f'{n},"{_HOSTILE} $x^2$ **Shop** [a](b) | {n // 2} \u4e2d\u6587",'
        f"{n // 2 + 1} Main St,555{n // 2:04}"
        for n in range(60)
    ]
    return ("Id,name,address,phone\n" + "\n".join(rows) + "\n").encode()


@pytest.fixture(scope="module")
def resolution() -> Resolution:
    return resolve(hostile_table(), Settings())


def test_the_proposal_has_proof_for_every_rule(resolution: Resolution) -> None:
    rules = proposal(resolution)
    json.dumps(rules, allow_nan=False)
    assert [rule["name"] for rule in rules["rules"]] == ["identical", *RULE_NAMES]
    joined = [rule for rule in rules["rules"] if rule["row_pairs"]]
    assert joined
    assert all(rule["samples"] for rule in joined)
    assert rules["rows"] == 60
    assert sum(rule["row_pairs"] for rule in rules["rules"]) <= rules["quality"]["joined_pairs"]


def test_the_digest_binds_table_and_settings(resolution: Resolution) -> None:
    digest = proposal(resolution)["digest"]
    assert proposal(resolve(hostile_table(), Settings()))["digest"] == digest
    other = resolve(hostile_table(), Settings.of(None, 0.95, None))
    assert proposal(other)["digest"] != digest
    assert proposal(resolve(hostile_table() + b"99,x,,\n", Settings()))["digest"] != digest
    assert digest in rules_markdown(proposal(resolution))


def test_data_stays_data_in_the_page_a_person_decides_on(resolution: Resolution) -> None:
    page = rules_markdown(proposal(resolution))
    assert "\\<script\\>" in page
    assert "<script>" not in page
    assert "**Shop**" not in page


def test_the_page_names_each_rule_as_rules_off_wants_it(resolution: Resolution) -> None:
    rules = proposal(resolution)
    page = rules_markdown(rules)
    report = report_html(resolution, overview(resolution.table, resolution.roles), rules)
    for name in RULE_NAMES:
        assert f"`{name}`" in page
        assert f"<code>{name}</code>" in report


def test_a_table_too_small_to_estimate_from_gets_no_numbers() -> None:
    table = (
        b"name,address,city\nAce Shop,1 Main St,Rome\nBlue Bar,2 Oak Ave,Troy\nZoo,9 Elm St,Bath\n"
    )
    resolution = resolve(table, Settings())
    rules = proposal(resolution)
    page = rules_markdown(rules)
    assert question(rules).startswith("Nothing to join: 3 rows")
    assert "too few pairs to tell" in page
    assert "100.0%" not in page
    assert "99.5%" not in page
    report = report_html(resolution, overview(resolution.table, resolution.roles), rules)
    assert "too few pairs to tell" in report
    assert "99.5%" not in report


def test_one_pair_is_shown_whole_and_counted_as_one() -> None:
    same = b"Ace Shop,1 Main St,Rome,5551234567\n"
    resolution = resolve(b"name,address,city,phone\n" + same + same, Settings())
    page = rules_markdown(proposal(resolution))
    assert "1 pair of rows would be joined" in page
    assert "Join 2 rows into 1 entity?" in page
    assert "Rome" in page


def test_a_pair_decided_by_more_than_its_probability_says_by_what() -> None:
    rows = "".join(
        f"{word} Shop{kind},{number + 1} Main St,555{number:04}\n"
        for number, word in enumerate(("Amber", "Birch", "Cedar", "Daisy", "Elder", "Fern"))
        for kind in ("", " Annex")
    )
    rule = "same-place-same-name"
    off = proposal(resolve(f"name,address,phone\n{rows}".encode(), Settings.of(None, 0.9, [rule])))
    refused = next(each for each in off["rules"] if each["name"] == rule)["refused_samples"]
    assert {each["why"] for each in refused} == {f"{rule} is switched off"}


def test_the_report_is_self_contained_and_escaped(resolution: Resolution) -> None:
    rules = proposal(resolution)
    profile = overview(resolution.table, resolution.roles)
    verdict = {"by": "ada <b>", "comment": "fine & good"}
    page = report_html(resolution, profile, rules, approved=verdict)
    assert _HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "ada &lt;b&gt;" in page
    assert not re.search(r'(?:src|href)="(?!data:image/svg\+xml;base64,)', page)
    assert page.count('src="data:image/svg+xml;base64,') == 4
    assert page == report_html(resolution, profile, rules, approved=verdict)


def test_a_rejection_is_reported_with_the_persons_words(resolution: Resolution) -> None:
    profile = overview(resolution.table, resolution.roles)
    page = report_html(resolution, profile, proposal(resolution), rejected="no, ask <Bob>")
    assert "no, ask &lt;Bob&gt;" in page
    assert "rejected" in page
    silent = report_html(resolution, profile, proposal(resolution), rejected="")
    assert "rejected" in silent


def test_the_lineage_picture_is_well_formed_and_stable(resolution: Resolution) -> None:
    picture = lineage_picture(resolution)
    ET.fromstring(picture)
    assert picture == lineage_picture(resolution)
    assert "60 input rows" in picture


def test_the_lineage_picture_shows_the_whole_name_of_an_entity() -> None:
    name = "Northern Neighborhood Community Child Development Center"
    rows = f"{name},1 Main St\n{name.upper()},1 Main Street\n"
    picture = lineage_picture(resolve(f"name,address\n{rows}".encode(), Settings()))
    for word in name.split():
        assert word in picture
    assert "…" not in picture


def test_the_blueprint_names_the_rules_that_exist() -> None:
    properties = BLUEPRINT["input_schema"]["properties"]
    assert tuple(properties["rules_off"]["items"]["enum"]) == RULE_NAMES
