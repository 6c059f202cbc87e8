"""A Fellegi-Sunter model of "same entity", learned from the table itself without labels.

Each field's agreement level is weighed by how much likelier it is among matches than among
non-matches. Both chances, and the share of matches, are estimated by expectation-maximisation over
*all* pairs of the table: the candidate pairs one by one, the rest through a random sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onbelay_server.blueprints.data_cleanup.blocking import Candidates
from onbelay_server.blueprints.data_cleanup.comparison import (
    Comparison,
    ContactLevel,
    PairComparison,
    PlaceLevel,
)
from onbelay_server.blueprints.data_cleanup.names import NameLevel

FIELDS = ("name", "place", "phone", "email")
_SAMPLE_PAIRS = 60_000
_SEED = 20_240_229
_ITERATIONS = 60
_PRIOR_COUNT = 2.0
_EVIDENCE_LIMIT = 13.0  # nats a single field may add: no field alone is beyond doubt

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Comparisons of many pairs as columns. `chance` is, where a value agrees, how likely two
    different entities agree on it by its own commonness; NaN where the level's average counts."""

    levels: dict[str, Levels]
    chance: dict[str, Floats]
    contradiction: Levels
    own_contact: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.contradiction)


def evidence_of(comparisons: Iterable[Comparison], count: int, places: int) -> Evidence:
    """The columns of `count` comparisons in a table with that many places."""
    levels = {field: np.full(count, -1, dtype=np.int8) for field in FIELDS}
    chance = {field: np.full(count, np.nan) for field in FIELDS}
    contradiction = np.zeros(count, dtype=np.int8)
    own_contact = np.zeros(count, dtype=np.bool_)
    total = max(places, 2)
    for at, pair in enumerate(comparisons):
        levels["name"][at] = pair.name
        levels["place"][at] = pair.place
        levels["phone"][at] = pair.phone
        levels["email"][at] = pair.email
        if pair.name >= NameLevel.CONTAINED:
            chance["name"][at] = (pair.name_places - 0.5) / total
        if pair.phone is ContactLevel.SAME:
            chance["phone"][at] = (pair.phone_places - 0.5) / total
        if pair.email is ContactLevel.SAME:
            chance["email"][at] = (pair.email_places - 0.5) / total
        contradiction[at] = pair.contradiction
        own_contact[at] = pair.shares_own_contact
    return Evidence(levels, chance, contradiction, own_contact)


@dataclass(frozen=True, slots=True)
class Model:
    """What was learned: for each field and level the chance among matches and non-matches, and the
    share of matches among all pairs. Levels start at 0; a missing level weighs nothing."""

    among_matches: dict[str, tuple[float, ...]]
    among_others: dict[str, tuple[float, ...]]
    share_of_matches: float

    def scores(self, evidence: Evidence) -> Floats:
        """Log-odds (nats) of "same entity" for each pair; positive is likelier than not."""
        total = np.full(len(evidence), _log_odds(self.share_of_matches))
        for field in FIELDS:
            total += self.weights(field, evidence)
        return total

    def weights(self, field: str, evidence: Evidence) -> Floats:
        """What one field adds to each pair's log-odds."""
        levels = evidence.levels[field]
        match = np.array(self.among_matches[field])
        other = np.array(self.among_others[field])
        at = np.maximum(levels, 0)
        chance = evidence.chance[field]
        # A rare value tells more than the level's average, a common one less.
        by_chance = np.where(np.isnan(chance), other[at], chance)
        weight = np.log(match[at] / by_chance)
        weight = np.clip(weight, -_EVIDENCE_LIMIT, _EVIDENCE_LIMIT)
        return np.where(levels < 0, 0.0, weight)


def probabilities(scores: Floats) -> Floats:
    """Log-odds as probabilities."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -500, 500))))


def compare_pairs(
    comparer: PairComparison,
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    places: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """Compare pairs given as two columns of profile numbers. `on_progress(done, total)`."""
    count = len(left)

    def compared() -> Iterable[Comparison]:
        for at, (one, other) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            if on_progress is not None and at % 25_000 == 24_999:
                on_progress(at + 1, count)
            yield comparer.compare(one, other)

    return evidence_of(compared(), count, places)


def learn(
    comparer: PairComparison, candidates: Candidates, evidence: Evidence, profiles: int, places: int
) -> Model:
    """Estimate the model by EM. Deterministic. With no candidate pair the prior alone speaks."""
    all_pairs = max(profiles * (profiles - 1) / 2, 1.0)
    rest, rest_weight = _sample_of_rest(comparer, candidates, profiles, places, all_pairs)
    sizes = {"name": len(NameLevel) - 1, "place": len(PlaceLevel) - 1,
             "phone": len(ContactLevel) - 1, "email": len(ContactLevel) - 1}  # fmt: skip
    model = _start(sizes, all_pairs, profiles)
    for _ in range(_ITERATIONS):
        chance_here = probabilities(model.scores(evidence))
        chance_rest = probabilities(model.scores(rest))
        matches: dict[str, tuple[float, ...]] = {}
        others: dict[str, tuple[float, ...]] = {}
        for field, size in sizes.items():
            match = np.zeros(size)
            other = np.zeros(size)
            for part, chance, weight in (
                (evidence, chance_here, 1.0),
                (rest, chance_rest, rest_weight),
            ):
                known = part.levels[field] >= 0
                at = part.levels[field][known]
                p = chance[known]
                match += weight * np.bincount(at, weights=p, minlength=size)
                other += weight * np.bincount(at, weights=1 - p, minlength=size)
            start = model_prior(field, size)
            matches[field] = _shares(match, start[0])
            others[field] = _shares(other, start[1])
        found = float(chance_here.sum() + rest_weight * chance_rest.sum())
        share = float(np.clip(found / all_pairs, 1e-9, 0.5))
        moved = abs(share - model.share_of_matches) / model.share_of_matches
        for field in sizes:
            before = np.array(model.among_matches[field])
            moved = max(moved, float(np.abs(np.array(matches[field]) - before).max()))
        model = Model(matches, others, share)
        if moved < 1e-4:
            break
    return model


def _sample_of_rest(
    comparer: PairComparison, candidates: Candidates, profiles: int, places: int, all_pairs: float
) -> tuple[Evidence, float]:
    """Random pairs outside the candidates, and how many pairs each one stands for."""
    if profiles < 2:
        return evidence_of((), 0, places), 0.0
    random = np.random.default_rng(_SEED)
    one = random.integers(0, profiles, _SAMPLE_PAIRS)
    other = random.integers(0, profiles, _SAMPLE_PAIRS)
    low, high = np.minimum(one, other), np.maximum(one, other)
    codes = np.unique((low * profiles + high)[low != high])
    codes = codes[~np.isin(codes, candidates.left * profiles + candidates.right)]
    rest = compare_pairs(comparer, codes // profiles, codes % profiles, places)
    return rest, (all_pairs - len(candidates)) / len(codes) if len(codes) else 0.0


def model_prior(field: str, size: int) -> tuple[Floats, Floats]:
    """Where EM starts, and what a level never seen keeps: agreement is likelier among matches."""
    rising = np.arange(1, size + 1, dtype=np.float64) ** 2
    match = rising / rising.sum()
    other = (0.05 ** np.arange(size)) if field != "place" else 0.3 ** np.arange(size)
    return match, other / other.sum()


def _start(sizes: dict[str, int], all_pairs: float, profiles: int) -> Model:
    priors = {field: model_prior(field, size) for field, size in sizes.items()}
    return Model(
        {field: tuple(prior[0].tolist()) for field, prior in priors.items()},
        {field: tuple(prior[1].tolist()) for field, prior in priors.items()},
        float(np.clip(profiles / all_pairs, 1e-9, 0.25)),
    )


def _shares(counts: Floats, prior: Floats) -> tuple[float, ...]:
    smoothed = counts + _PRIOR_COUNT * prior
    return tuple((smoothed / smoothed.sum()).tolist())


def _log_odds(share: float) -> float:
    return float(np.log(share / (1.0 - share)))
