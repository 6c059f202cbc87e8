"""Rows of one entity come together, siblings stay apart, and the estimates mean something."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from onbelay_server.blueprints.data_cleanup.blocking import MAX_BLOCK_PROFILES, candidate_pairs
from onbelay_server.blueprints.data_cleanup.cleaning import (
    agreed_value,
    cleaned_csv,
    entities_csv,
    lineage_json,
)
from onbelay_server.blueprints.data_cleanup.clustering import clusters
from onbelay_server.blueprints.data_cleanup.quality import estimate
from onbelay_server.blueprints.data_cleanup.records import RowFields, fold_rows
from onbelay_server.blueprints.data_cleanup.resolution import Resolution, Settings, resolve
from onbelay_server.blueprints.data_cleanup.table import CleanupError

_STEMS = ["bar", "cor", "del", "fen", "gor", "hal", "jin", "kel", "lom", "mar", "nor", "pol"]
_ENDS = ["en", "ita", "ford", "berg", "ley", "mont", "ous", "wick"]
_KINDS = ["School", "Clinic", "Bakery", "Garage", "Market", "Center"]


def made_table(entities: int, seed: int = 3) -> tuple[bytes, list[int]]:
    """A table of known truth: misspelt, shortened, with missing and wrong cells."""
    chance = random.Random(seed)
    words = [stem + end for stem in _STEMS for end in _ENDS]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["Ref", "Company", "Street address", "Postcode", "Telephone"])
    truth: list[int] = []
    for entity in range(entities):
        kind = chance.choice(_KINDS)
        name = " ".join(chance.sample(words, 2)).title() + " " + kind
        street = f"{chance.randrange(1, 9000)} {chance.choice('NSEW')} {chance.choice(words)}"
        phone = f"312{chance.randrange(200, 999)}{chance.randrange(10**4):04}"
        zipped = str(60600 + chance.randrange(60))
        for _ in range(1 + min(5, int(chance.expovariate(0.6)))):
            spelt = name.upper() if chance.random() < 0.3 else name
            if chance.random() < 0.15:
                at = chance.randrange(1, len(spelt) - 2)
                spelt = spelt[:at] + spelt[at + 1 :]
            writer.writerow(
                [
                    f"r{len(truth)}",
                    spelt if chance.random() > 0.1 else spelt.rsplit(" ", 1)[0],
                    street.title() + chance.choice([" St", " Street", ""]),
                    zipped if chance.random() > 0.3 else "",
                    phone if chance.random() > 0.25 else "",
                ]
            )
            truth.append(entity)
    return out.getvalue().encode(), truth


def pairs_of(groups: list[list[int]]) -> set[tuple[int, int]]:
    return {pair for group in groups for pair in itertools.combinations(sorted(group), 2)}


@pytest.fixture(scope="module")
def made() -> tuple[Resolution, list[int]]:
    data, truth = made_table(350)
    return resolve(data, Settings()), truth


def test_entities_are_found_in_a_table_of_another_layout(
    made: tuple[Resolution, list[int]],
) -> None:
    resolution, truth = made
    true_groups: dict[int, list[int]] = {}
    for row, entity in enumerate(truth):
        true_groups.setdefault(entity, []).append(row)
    true, found = pairs_of(list(true_groups.values())), pairs_of(resolution.entities())
    assert len(true & found) / len(found) >= 0.97
    assert len(true & found) / len(true) >= 0.93
    quality = estimate(resolution)
    assert quality.precision is not None
    assert quality.precision >= 0.93
    assert quality.joined_pairs == len(found)


def test_the_same_bytes_give_the_same_files(made: tuple[Resolution, list[int]]) -> None:
    resolution, _ = made
    again = resolve(made_table(350)[0], Settings())
    for write in (cleaned_csv, entities_csv, lineage_json):
        assert write(again) == write(resolution)


def test_every_row_is_in_exactly_one_entity(made: tuple[Resolution, list[int]]) -> None:
    resolution, truth = made
    lines = list(csv.DictReader(io.StringIO(entities_csv(resolution))))
    assert [line["Id"] for line in lines] == [str(at + 1) for at in range(len(truth))]
    lineage = json.loads(lineage_json(resolution))
    assert [lineage["inputs"][str(at + 1)] for at in range(len(truth))] == [
        line["cluster_id"] for line in lines
    ]
    rows = [row for output in lineage["outputs"].values() for row in output["rows"]]
    assert sorted(rows) == list(range(1, len(truth) + 1))
    cleaned = list(csv.DictReader(io.StringIO(cleaned_csv(resolution))))
    assert {line["cluster_id"]: int(line["input_rows"]) for line in cleaned} == Counter(
        line["cluster_id"] for line in lines
    )


def agency_rows(extra: str) -> bytes:
    """Many plain sites to learn from, and the rows in question."""
    return made_table(150)[0] + extra.encode()


def grouped(resolution: Resolution, ids: list[str]) -> list[list[str]]:
    names = resolution.table.column("Ref")
    groups = [[names[row] for row in rows if names[row] in ids] for rows in resolution.entities()]
    return [group for group in groups if group]


def test_siblings_of_one_organisation_stay_apart() -> None:
    resolution = resolve(
        agency_rows(
            "a1,Zeta Agency - Little Stars I,1711 W Quill St,60610,3129991111\n"
            "a2,ZETA AGENCY LITTLE STARS I,1711 W Quill,60610,3129991111\n"
            "b1,Zeta Agency - Little Stars II,1723 W Quill St,60610,3129991111\n"
            "b2,Little Stars II,1723 W Quill Street,60610,3129991111\n"
            "c1,Zeta Agency - Harbor,22 N Dock St,60699,3129991111\n"
        ),
        Settings(),
    )
    assert grouped(resolution, ["a1", "a2", "b1", "b2", "c1"]) == [
        ["a1", "a2"],
        ["b1", "b2"],
        ["c1"],
    ]


def test_a_rule_switched_off_joins_nothing() -> None:
    extra = (
        "a1,Zeta Harbor Nursery,22 N Dock St,60699,3129991111\n"
        "a2,Zeta Harbor Nursery,910 S Other Ave,60699,3129991111\n"
    )
    both = ["a1", "a2"]
    assert grouped(resolve(agency_rows(extra), Settings()), both) == [both]
    off = Settings.of(None, 0.5, ["other-place-own-contact"])
    assert grouped(resolve(agency_rows(extra), off), both) == [["a1"], ["a2"]]


@pytest.mark.parametrize(("probability", "off"), [(0.0, []), (1.0, []), (0.5, ["nope"])])
def test_settings_are_checked(probability: float, off: list[str]) -> None:
    with pytest.raises(CleanupError):
        Settings.of(None, probability, off)


def test_rows_that_say_nothing_are_never_joined() -> None:
    resolution = resolve(b"name,phone\nFoo Bar,5551234\n,\n-,\nN/A,\n", Settings())
    assert [len(rows) for rows in resolution.entities()] == [1, 1, 1, 1]


def test_one_column_of_names_is_enough() -> None:
    resolution = resolve(b"name\nAcme Corp.\nACME corp\nOther Thing\n", Settings())
    assert resolution.entities() == [[0, 1], [2]]


def test_one_row_is_one_entity() -> None:
    resolution = resolve(b"name\nAcme\n", Settings())
    assert resolution.entities() == [[0]]
    assert estimate(resolution).recall is None  # no pair to estimate from


def test_blocks_do_not_explode() -> None:
    rows = [RowFields(name=f"Shop {n}", phone="5551234") for n in range(5_000)]
    found = candidate_pairs(fold_rows(rows))
    assert len(found) <= 5_000 * MAX_BLOCK_PROFILES
    assert found.thinned_blocks > 0
    assert bool((found.left < found.right).all())


def test_clusters_weigh_contradiction_against_a_chain() -> None:
    # 0-1 and 2-3 surely belong together; 1-2 looks alike, everything else across contradicts.
    left, right = np.array([0, 1, 2]), np.array([1, 2, 3])
    scores = np.array([8.0, 3.0, 8.0])

    def across(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.full(len(one), -6.0)

    assert clusters(4, left, right, scores, across).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("cells", "role", "value"),
    [
        (["", "n/a", "12"], "", "12"),
        (["ACME CORP", "Acme Corp", "Other"], "name", "Acme Corp"),
        (["3125551234", "(312) 555-1234", "5559999"], "phone", "312-555-1234"),
        (["b.csv", "a.csv", "b.csv"], "source", "a.csv; b.csv"),
        ([], "", ""),
    ],
)
def test_the_agreed_value(cells: list[str], role: str, value: str) -> None:
    assert agreed_value(cells, role) == value
