"""The rules a person approves: which kinds of pairs are joined, which never are, and the proof.

The model scores every pair; the rules sort the pairs it would join into kinds a person can judge,
each with its own evidence and each to be switched off on its own. The guards name the kinds of
pairs that are refused whatever their score.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from onbelay_server.blueprints.data_cleanup.comparison import (
    ContactLevel,
    Contradiction,
    PlaceLevel,
)
from onbelay_server.blueprints.data_cleanup.model import Evidence
from onbelay_server.blueprints.data_cleanup.names import NameLevel


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of pair. Every pair is of exactly one kind: the first rule that fits."""

    name: str
    title: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Guard:
    """One kind of contradiction. `penalty` is what such a pair weighs (nats) against joining the
    groups it lies between."""

    contradiction: Contradiction
    title: str
    meaning: str
    penalty: float


IDENTICAL: Final = Rule(
    "identical",
    "Identical after normalising",
    "Name, address, zip and contacts are all the same once spelling, case, abbreviations and "
    "punctuation are evened out.",
)
RULES: Final = (
    Rule(
        "same-place-same-name",
        "Same address, same or contained name",
        "The addresses name one place, and one name says what the other says, or adds to it "
        "(an agency before the site's name, a short form).",
    ),
    Rule(
        "same-place-same-contact",
        "Same address and same phone or e-mail, names differ",
        "One place and one contact under two names.",
    ),
    Rule(
        "same-place-related-name",
        "Same address, names share only some telling words",
        "One place; the names overlap in words that are rare in this table; contacts are missing "
        "or differ.",
    ),
    Rule(
        "near-place",
        "Address mistyped or a few doors away",
        "Same street, and house numbers that differ in one digit or by a few doors, with a name "
        "or a contact that agrees.",
    ),
    Rule(
        "other-place-own-contact",
        "Other address, same name and a contact of its own",
        "The name agrees and so does a phone or e-mail found at no third address: a site that "
        "moved or is listed under two entrances.",
    ),
    Rule(
        "place-unknown",
        "Address missing, name and contact agree",
        "One of the two has no address; name, contact and zip speak for themselves.",
    ),
)
GUARDS: Final = (
    Guard(
        Contradiction.NUMBERED_SIBLINGS,
        "Numbered siblings",
        "Other address, and names that carry different numbers (Site 1, Site 2).",
        -10.0,
    ),
    Guard(
        Contradiction.SIBLINGS,
        "Siblings of one organisation",
        "Other address, and names with telling words of their own: an organisation's many sites "
        "share its name and switchboard.",
        -6.0,
    ),
    Guard(
        Contradiction.OTHER_PLACE,
        "Same name elsewhere",
        "Other address without a contact of their own in common: a second site of that name.",
        -6.0,
    ),
)
RULE_NAMES: Final = tuple(rule.name for rule in RULES)
_SAME_PLACE = (PlaceLevel.SAME, PlaceLevel.SAME_OTHER_ZIP, PlaceLevel.VARIANT)
_NEAR = (PlaceLevel.NEAR, PlaceLevel.MISTYPED)
_FAR = (PlaceLevel.DIFFERENT, PlaceLevel.DIFFERENT_SAME_ZIP)


def rule_numbers(evidence: Evidence) -> npt.NDArray[np.int8]:
    """For each pair the index in RULES of the kind it is of."""
    place = evidence.levels["place"]
    name = evidence.levels["name"]
    contact = (evidence.levels["phone"] == ContactLevel.SAME) | (
        evidence.levels["email"] == ContactLevel.SAME
    )
    same = np.isin(place, _SAME_PLACE)
    numbers = np.full(len(evidence), RULE_NAMES.index("place-unknown"), dtype=np.int8)
    numbers[np.isin(place, _FAR)] = RULE_NAMES.index("other-place-own-contact")
    numbers[np.isin(place, _NEAR)] = RULE_NAMES.index("near-place")
    numbers[same] = RULE_NAMES.index("same-place-related-name")
    numbers[same & contact] = RULE_NAMES.index("same-place-same-contact")
    numbers[same & (name >= NameLevel.CONTAINED)] = RULE_NAMES.index("same-place-same-name")
    return numbers


def decided(
    evidence: Evidence,
    scores: npt.NDArray[np.float64],
    threshold: float,
    rules_off: Collection[str],
) -> npt.NDArray[np.float64]:
    """The scores with the threshold (log-odds) at zero, guards and switched-off rules applied:
    positive means join."""
    result = scores - threshold
    for guard in GUARDS:
        hit = evidence.contradiction == guard.contradiction
        result = np.where(hit, np.minimum(result, guard.penalty), result)
    if rules_off:
        off = [at for at, rule in enumerate(RULES) if rule.name in rules_off]
        result = np.where(np.isin(rule_numbers(evidence), off), np.minimum(result, -1.0), result)
    return np.asarray(result)
