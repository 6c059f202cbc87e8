"""How good the entities are believed to be, without labels, and how that was estimated.

Pairs are counted as pairs of input rows, the way such results are judged: precision is the share
of joined pairs that are right, recall the share of right pairs that are joined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onbelay_server.blueprints.data_cleanup.comparison import (
    ContactLevel,
    Contradiction,
    PlaceLevel,
)
from onbelay_server.blueprints.data_cleanup.names import NameLevel
from onbelay_server.blueprints.data_cleanup.resolution import Resolution

# A model that multiplies fields as if independent is surer than it should be: believe no more.
_SUREST = 0.995
_MIN_CHECK_PAIRS = 30


@dataclass(frozen=True, slots=True)
class Quality:
    """Estimates as shares; ranges are (low, high). None where there are too few pairs to tell.

    `precision_check` asks a witness that was not heard: of the pairs joined on name and address
    alone, how often does the phone agree, compared with pairs whose identity is plain?
    `recall_check` is the share joined of the pairs with the same telling name and a phone of
    their own, wherever they stand.
    """

    precision: float | None
    precision_range: tuple[float, float] | None
    recall: float | None
    recall_range: tuple[float, float] | None
    precision_check: float | None
    recall_check: float | None
    joined_pairs: int
    disputed_pairs: int


def estimate(resolution: Resolution) -> Quality:
    """Estimate precision and recall of `resolution`. Deterministic and cheap."""
    weights = resolution.row_weights.astype(np.float64)
    together = resolution.together
    chance = np.minimum(resolution.probability, _SUREST)
    refused = resolution.evidence.contradiction != Contradiction.NONE
    sizes = [len(rows) for rows in resolution.entities()]
    joined = sum(size * (size - 1) // 2 for size in sizes)
    identical = sum(len(rows) * (len(rows) - 1) // 2 for rows in resolution.profiles.rows)
    # Pairs joined only through others were not candidates: the least certain kind.
    through_others = max(joined - identical - float(weights[together].sum()), 0.0)
    right = identical * _SUREST + float((chance * weights)[together].sum()) + 0.5 * through_others
    missed_plain = float((chance * weights)[~together & ~refused].sum())
    disputed = ~together & refused & (resolution.scores > 0)
    missed_disputed = float((chance * weights)[disputed].sum())
    precision = right / joined if joined else 1.0
    precision_check = _precision_check(resolution, weights)
    recall_high = _share_found(right, missed_plain)
    recall_low = _share_found(right, missed_plain + missed_disputed)
    recall_check = _recall_check(resolution, weights)
    precisions = [precision] if precision_check is None else [precision, precision_check]
    recalls = [recall_low, recall_high] + ([] if recall_check is None else [recall_check])
    # A model learned from a handful of pairs says little about them: no number is better than one.
    can_tell = joined >= _MIN_CHECK_PAIRS
    return Quality(
        precision=_rounded(float(np.mean(precisions))) if can_tell else None,
        precision_range=_range(precisions) if can_tell else None,
        recall=_rounded(float(np.mean(recalls))) if can_tell else None,
        recall_range=_range(recalls) if can_tell else None,
        precision_check=None if precision_check is None else _rounded(precision_check),
        recall_check=None if recall_check is None else _rounded(recall_check),
        joined_pairs=joined,
        disputed_pairs=int(weights[disputed].sum()),
    )


def _share_found(found: float, missed: float) -> float:
    """1 where not even one pair is expected: nothing can be missed in a table without copies."""
    return found / (found + missed) if found + missed >= 1 else 1.0


def _rounded(share: float) -> float:
    return round(share, 3)


def _range(shares: list[float]) -> tuple[float, float]:
    return _rounded(min(shares)), _rounded(max(shares))


def _agreement(hit: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]) -> float | None:
    total = float(weights.sum())
    return float(weights[hit].sum()) / total if len(weights) >= _MIN_CHECK_PAIRS else None


def _precision_check(resolution: Resolution, weights: npt.NDArray[np.float64]) -> float | None:
    evidence = resolution.evidence
    phone = evidence.levels["phone"]
    known = phone >= 0
    agrees = phone >= ContactLevel.CLOSE
    without = resolution.scores - resolution.model.weights("phone", evidence) > 0
    plain = (
        known
        & (evidence.levels["name"] == NameLevel.EXACT)
        & (evidence.levels["place"] == PlaceLevel.SAME)
    )
    tested = known & resolution.together & without & ~plain
    others = known & ~resolution.together
    expected = _agreement(agrees[plain], weights[plain])
    seen = _agreement(agrees[tested], weights[tested])
    if expected is None or seen is None:
        return None
    by_chance = _agreement(agrees[others], weights[others]) or 0.0
    if expected - by_chance < 0.2:
        return None
    share = float(np.clip((seen - by_chance) / (expected - by_chance), 0.0, 1.0))
    # The plain pairs are right as far as anyone can tell; only the tested ones are in doubt.
    doubted = float(weights[resolution.together & ~plain].sum())
    all_joined = float(weights[resolution.together].sum())
    return 1.0 - (1.0 - share) * doubted / all_joined if all_joined else None


def _recall_check(resolution: Resolution, weights: npt.NDArray[np.float64]) -> float | None:
    evidence = resolution.evidence
    sure = (evidence.levels["name"] >= NameLevel.SIMILAR) & evidence.own_contact
    return _agreement(resolution.together[sure], weights[sure])
