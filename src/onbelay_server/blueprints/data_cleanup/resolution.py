"""From bytes to entities: the whole computation, without any agent machinery.

The same bytes and settings always give the same resolution, so a step that needs it may compute it
again. `Resolution` keeps everything that proof, report and output files are made of.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from onbelay_server.blueprints.data_cleanup import rules
from onbelay_server.blueprints.data_cleanup.blocking import Candidates, candidate_pairs
from onbelay_server.blueprints.data_cleanup.clustering import clusters
from onbelay_server.blueprints.data_cleanup.comparison import PairComparison
from onbelay_server.blueprints.data_cleanup.model import (
    Evidence,
    Model,
    compare_pairs,
    learn,
    probabilities,
)
from onbelay_server.blueprints.data_cleanup.records import Profiles, fold_rows
from onbelay_server.blueprints.data_cleanup.roles import Roles, detect_roles
from onbelay_server.blueprints.data_cleanup.table import CleanupError, Table, read_table

Progress = Callable[[int, int, str], None]

# The fields of a pair are not independent, so the model is surer than it should be: read by eye,
# only about half of the pairs just above even odds are right. A wrong join costs more than a miss.
DEFAULT_MIN_PROBABILITY = 0.9


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person who starts the job may choose. `columns` is role → header name;
    `min_probability` is how likely a pair must be the same to be joined; `rules_off` names rules
    that are not to be applied."""

    columns: tuple[tuple[str, str], ...] = ()
    min_probability: float = DEFAULT_MIN_PROBABILITY
    rules_off: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        columns: Mapping[str, str] | None,
        min_probability: float,
        rules_off: list[str] | None,
    ) -> Settings:
        """Checked settings. Raises CleanupError naming the one that is wrong."""
        if not 0.05 <= min_probability <= 0.999:
            raise CleanupError("min_probability must be between 0.05 and 0.999.")
        unknown = sorted(set(rules_off or ()) - set(rules.RULE_NAMES))
        if unknown:
            raise CleanupError(
                f"rules_off: no rule is called {', '.join(unknown)}; "
                f"rules are {', '.join(rules.RULE_NAMES)}."
            )
        return cls(
            tuple(sorted((columns or {}).items())),
            min_probability,
            tuple(sorted(set(rules_off or ()))),
        )


@dataclass(slots=True)
class Resolution:
    """A resolved table. Pair columns run parallel to `candidates`; `cluster` is by profile."""

    table: Table
    roles: Roles
    profiles: Profiles
    candidates: Candidates
    evidence: Evidence
    model: Model
    scores: npt.NDArray[np.float64]
    decision: npt.NDArray[np.float64]
    rule: npt.NDArray[np.int8]
    cluster: npt.NDArray[np.int64]
    table_sha256: str
    settings: Settings
    notes: list[str] = field(default_factory=list)

    @property
    def probability(self) -> npt.NDArray[np.float64]:
        """How likely each candidate pair is the same entity, by the model alone."""
        return probabilities(self.scores)

    @property
    def row_weights(self) -> npt.NDArray[np.int64]:
        """How many pairs of rows each candidate pair stands for."""
        rows = np.array([len(rows) for rows in self.profiles.rows], dtype=np.int64)
        return np.asarray(rows[self.candidates.left] * rows[self.candidates.right])

    @property
    def together(self) -> npt.NDArray[np.bool_]:
        """Which candidate pairs ended in one entity."""
        return np.asarray(self.cluster[self.candidates.left] == self.cluster[self.candidates.right])

    def entities(self) -> list[list[int]]:
        """The rows (0-based, ascending) of each entity, in order of their first row."""
        groups: dict[int, list[int]] = {}
        for row, profile in enumerate(self.profiles.profile_of_row):
            groups.setdefault(int(self.cluster[profile]), []).append(row)
        return sorted(groups.values(), key=lambda rows: rows[0])


def silent(done: int, total: int, note: str) -> None:
    """Progress nobody watches."""


def resolve(data: bytes, settings: Settings, progress: Progress = silent) -> Resolution:
    """Read and resolve the table in `data`. Raises CleanupError when that cannot be done.

    `progress(done, total, note)` is called in every stage that takes long, from this thread.
    """
    progress(0, 100, "Reading the table")
    table = read_table(data)
    roles = detect_roles(table, dict(settings.columns))
    notes = list(table.notes)
    progress(5, 100, f"Normalising {len(table.rows):,} rows")
    profiles = fold_rows(roles.rows(table), _part(progress, 5, 25, "Normalising rows"))
    progress(25, 100, "Looking for pairs worth comparing")
    candidates = candidate_pairs(profiles, _part(progress, 25, 35, "Blocking"))
    if candidates.is_capped:
        notes.append(
            f"Only the {len(candidates):,} most telling pairs were compared: the table is so "
            "uniform that comparing more would take too long."
        )
    elif candidates.thinned_blocks:
        notes.append(
            f"{candidates.thinned_blocks:,} groups of rows shared a key with too many others; in "
            "these only neighbours in sorting order were compared."
        )
    comparer = PairComparison(profiles)
    evidence = compare_pairs(
        comparer,
        candidates.left,
        candidates.right,
        profiles.places,
        _part(progress, 35, 75, "Comparing pairs"),
    )
    progress(75, 100, "Learning what agreement is worth")
    model = learn(comparer, candidates, evidence, len(profiles.profiles), profiles.places)
    scores = model.scores(evidence)
    threshold = math.log(settings.min_probability / (1 - settings.min_probability))
    decision = rules.decided(evidence, scores, threshold, settings.rules_off)

    def score_pairs(
        left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        more = compare_pairs(comparer, left, right, profiles.places)
        return rules.decided(more, model.scores(more), threshold, settings.rules_off)

    progress(85, 100, "Clustering")
    cluster = clusters(
        len(profiles.profiles),
        candidates.left,
        candidates.right,
        decision,
        score_pairs,
        _part(progress, 85, 100, "Clustering"),
    )
    progress(100, 100, "Entities found")
    return Resolution(
        table, roles, profiles, candidates, evidence, model, scores, decision,
        rules.rule_numbers(evidence), cluster, hashlib.sha256(data).hexdigest(), settings, notes,
    )  # fmt: skip


def _part(progress: Progress, start: int, end: int, note: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        progress(start + (end - start) * done // max(total, 1), 100, f"{note} ({done:,}/{total:,})")

    return report


@lru_cache(maxsize=1)
def _remembered(data: bytes, settings: Settings) -> list[Resolution]:
    return []


def resolved(data: bytes, settings: Settings, progress: Progress = silent) -> Resolution:
    """Like `resolve`, but the last result is kept in this process: the steps of one run that need
    the same resolution compute it once, and after a crash once more."""
    kept = _remembered(data, settings)
    if not kept:
        # Two threads at once compute it twice, with the same result: cheaper than waiting.
        kept.append(resolve(data, settings, progress))
    return kept[0]
