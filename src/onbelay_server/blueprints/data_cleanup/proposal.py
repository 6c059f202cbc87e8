"""What a person is asked to approve: the rules of one resolution, each with its evidence."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

import numpy as np

from onbelay_server.blueprints.data_cleanup.comparison import ContactLevel, PlaceLevel
from onbelay_server.blueprints.data_cleanup.model import FIELDS
from onbelay_server.blueprints.data_cleanup.names import NameLevel
from onbelay_server.blueprints.data_cleanup.quality import Quality, estimate
from onbelay_server.blueprints.data_cleanup.resolution import Resolution
from onbelay_server.blueprints.data_cleanup.rules import (
    GUARDS,
    IDENTICAL,
    RULES,
)
from onbelay_server.blueprints.data_cleanup.text import repaired

SAMPLE_PAIRS = 4
_SAMPLE_SEED = 7
_SHOWN_CHARACTERS = 90
SHOWN_ROLES = ("name", "address", "zip", "city", "phone", "email", "source")
LEVELS = {"name": NameLevel, "place": PlaceLevel, "phone": ContactLevel, "email": ContactLevel}

Json = dict[str, Any]
T = TypeVar("T")


def proposal(resolution: Resolution) -> Json:
    """The rules with their evidence, the model's weights and the expected quality, as JSON values.
    `digest` binds exactly what would be applied, to exactly this table."""
    quality = estimate(resolution)
    can_tell = quality.precision is not None
    rules = [
        _identical(resolution, can_tell),
        *(_rule(resolution, at, can_tell) for at in range(len(RULES))),
    ]
    applied = {
        "table_sha256": resolution.table_sha256,
        "columns": dict(resolution.roles.columns),
        "min_probability": resolution.settings.min_probability,
        "rules": [rule["name"] for rule in rules if rule["applied"]],
        "guards": [[guard.contradiction.name, guard.penalty] for guard in GUARDS],
        "weights": model_weights(resolution),
    }
    return {
        **applied,
        "digest": digest_of(applied),
        "rules": rules,
        "guards": [_guard(resolution, at) for at in range(len(GUARDS))],
        "rows": len(resolution.table.rows),
        "entities": len(resolution.entities()),
        "pairs_compared": len(resolution.candidates),
        "quality": quality_json(quality),
        "notes": list(resolution.notes),
    }


def digest_of(applied: Json) -> str:
    """SHA-256 of what is to be applied, over its canonical JSON."""
    text = json.dumps(applied, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def quality_json(quality: Quality) -> Json:
    """The estimates as JSON values."""
    return {
        "precision": quality.precision,
        "precision_range": quality.precision_range and list(quality.precision_range),
        "recall": quality.recall,
        "recall_range": quality.recall_range and list(quality.recall_range),
        "precision_check": quality.precision_check,
        "recall_check": quality.recall_check,
        "joined_pairs": quality.joined_pairs,
        "disputed_pairs": quality.disputed_pairs,
    }


def model_weights(resolution: Resolution) -> Json:
    """For each field and level the average weight in bits, rounded: positive speaks for "same"."""
    model = resolution.model
    weights: Json = {"prior": round(float(np.log2(model.share_of_matches)), 3)}
    for field in FIELDS:
        if not (resolution.evidence.levels[field] >= 0).any():
            continue
        bits = np.log2(np.array(model.among_matches[field]) / np.array(model.among_others[field]))
        weights[field] = {
            LEVELS[field](level).name.lower(): round(float(bit), 2)
            for level, bit in enumerate(bits)
        }
    return weights


def _identical(resolution: Resolution, can_tell: bool) -> Json:
    sizes = [len(rows) for rows in resolution.profiles.rows]
    groups = [rows for rows in resolution.profiles.rows if len(rows) > 1]
    return {
        "name": IDENTICAL.name,
        "title": IDENTICAL.title,
        "meaning": IDENTICAL.meaning,
        "applied": True,
        "row_pairs": sum(size * (size - 1) // 2 for size in sizes),
        "profile_pairs": 0,
        "estimated_precision": 0.995 if groups and can_tell else None,
        "conflicts": 0,
        "samples": [
            {
                "a": _row(resolution, rows[0]),
                "b": _row(resolution, rows[1]),
                "probability": 0.995,
                "why": "",
            }
            for rows in _drawn(groups)
        ],
        "refused_samples": [],
    }


def _rule(resolution: Resolution, at: int, can_tell: bool) -> Json:
    rule = RULES[at]
    weights = resolution.row_weights
    kind = resolution.rule == at
    joined = kind & resolution.together
    refused = kind & ~resolution.together & (resolution.scores > 0)
    chance = np.minimum(resolution.probability, 0.995)
    pairs = int(weights[joined].sum())
    # Joined although something other than spelling differs: what a sceptic would look at first.
    phones_differ = joined & (resolution.evidence.levels["phone"] == ContactLevel.DIFFERENT)
    zips_differ = joined & (resolution.evidence.levels["place"] == PlaceLevel.SAME_OTHER_ZIP)
    mean = float((chance * weights)[joined].sum()) / pairs if pairs and can_tell else None
    return {
        "name": rule.name,
        "title": rule.title,
        "meaning": rule.meaning,
        "applied": rule.name not in resolution.settings.rules_off,
        "row_pairs": pairs,
        "profile_pairs": int(joined.sum()),
        "estimated_precision": None if mean is None else round(mean, 3),
        "conflicts": int(weights[phones_differ | zips_differ].sum()),
        "samples": samples(resolution, np.flatnonzero(joined).tolist()),
        "refused_samples": samples(resolution, np.flatnonzero(refused).tolist()),
    }


def _guard(resolution: Resolution, at: int) -> Json:
    guard = GUARDS[at]
    hit = (
        (resolution.evidence.contradiction == guard.contradiction)
        & (resolution.scores > 0)
        & ~resolution.together
    )
    return {
        "name": guard.contradiction.name.lower().replace("_", "-"),
        "title": guard.title,
        "meaning": guard.meaning,
        "refused_row_pairs": int(resolution.row_weights[hit].sum()),
        "samples": samples(resolution, np.flatnonzero(hit).tolist()),
    }


def samples(resolution: Resolution, pairs: list[int], count: int = SAMPLE_PAIRS) -> list[Json]:
    """Some of the candidate pairs with these numbers, drawn by a fixed seed, in table order."""
    shown = []
    for pair in _drawn(pairs, count):
        left = int(resolution.candidates.left[pair])
        right = int(resolution.candidates.right[pair])
        shown.append(
            {
                "a": _row(resolution, resolution.profiles.rows[left][0]),
                "b": _row(resolution, resolution.profiles.rows[right][0]),
                "probability": round(float(resolution.probability[pair]), 3),
                "why": _why(resolution, pair),
            }
        )
    return shown


def _why(resolution: Resolution, pair: int) -> str:
    """What decided a pair where its own probability did not; empty where it did."""
    speaks_for = bool(resolution.decision[pair] > 0)
    if resolution.together[pair]:
        return "" if speaks_for else "the other rows of its entity join it"
    if speaks_for:
        return "the other rows of the two entities disagree"
    for guard in GUARDS:
        if resolution.evidence.contradiction[pair] == guard.contradiction:
            return guard.title.lower()
    rule = RULES[int(resolution.rule[pair])].name
    if rule in resolution.settings.rules_off:
        return f"{rule} is switched off"
    return f"less than {resolution.settings.min_probability:.0%} likely"


def _drawn(items: list[T], count: int = SAMPLE_PAIRS) -> list[T]:
    if len(items) <= count:
        return items
    chosen = np.random.default_rng(_SAMPLE_SEED).choice(len(items), size=count, replace=False)
    return [items[at] for at in sorted(chosen.tolist())]


def _row(resolution: Resolution, row: int) -> Json:
    """What a person needs to see of a row: its number (1-based) and the telling cells."""
    shown: Json = {"row": row + 1}
    for role in SHOWN_ROLES:
        columns = resolution.roles.columns.get(role, "")
        if not columns:
            continue
        cells = [
            resolution.table.rows[row][resolution.table.header.index(column)]
            for column in columns.split("\t")
        ]
        text = repaired(" ".join(cells))
        if text:
            cut = len(text) > _SHOWN_CHARACTERS
            shown[role] = text[: _SHOWN_CHARACTERS - 1] + "…" if cut else text
    return shown
