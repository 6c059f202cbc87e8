"""How alike two names are, by the words they share and how much these words tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from rapidfuzz.distance import DamerauLevenshtein

from onbelay_server.blueprints.data_cleanup.records import Profiles
from onbelay_server.blueprints.data_cleanup.text import name_numbers

_ALIKE = 0.82
_MIN_FUZZY_LETTERS = 5
_MIN_PREFIX_LETTERS = 3


class NameLevel(IntEnum):
    """Agreement of two names, weakest first. MISSING where either says nothing."""

    MISSING = -1
    DIFFERENT = 0
    WEAK = 1
    PARTIAL = 2
    CONTAINED = 3
    SIMILAR = 4
    EXACT = 5


@dataclass(frozen=True, slots=True)
class NameAgreement:
    """`places` is at how many places an agreement like this one would be found: 1 = telling."""

    level: NameLevel
    places: int
    numbers_conflict: bool


class NameComparison:
    """Compares names of one table; remembers what it compared (bounded by `limit` entries)."""

    def __init__(self, table: Profiles, limit: int = 1_000_000) -> None:
        self._table = table
        self._weights: dict[str, float] = {}
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], NameAgreement] = {}
        self._limit = limit

    def compare(self, left: tuple[str, ...], right: tuple[str, ...]) -> NameAgreement:
        """The agreement of two names as words; the same whichever comes first."""
        if left > right:
            left, right = right, left
        known = self._known.get((left, right))
        if known is None:
            known = self._compare(left, right)
            if len(self._known) < self._limit:
                self._known[left, right] = known
        return known

    def _weight(self, word: str) -> float:
        weight = self._weights.get(word)
        if weight is None:
            weight = self._weights[word] = self._table.word_weight(word)
        return weight

    def _compare(self, left: tuple[str, ...], right: tuple[str, ...]) -> NameAgreement:
        if not left or not right:
            return NameAgreement(NameLevel.MISSING, self._table.places, False)
        a, b = frozenset(left), frozenset(right)
        numbers_a, numbers_b = name_numbers(left), name_numbers(right)
        conflict = bool(numbers_a and numbers_b and not numbers_a & numbers_b)
        if a == b:
            return NameAgreement(NameLevel.EXACT, self._table.places_with_name.get(a, 1), False)
        if "".join(left) == "".join(right):
            return NameAgreement(NameLevel.EXACT, 1, False)
        shared, rarest = self._shared_weight(left, right, a, b)
        total_a = sum(self._weight(word) for word in a)
        total_b = sum(self._weight(word) for word in b)
        whole = shared / max(total_a, total_b, 1e-9)
        part = shared / max(min(total_a, total_b), 1e-9)
        if whole >= 0.8:
            level = NameLevel.SIMILAR
        elif part >= 0.8:
            level = NameLevel.CONTAINED
        elif part >= 0.45:
            level = NameLevel.PARTIAL
        elif part >= 0.15:
            level = NameLevel.WEAK
        else:
            level = NameLevel.DIFFERENT
        return NameAgreement(level, rarest, conflict)

    def _shared_weight(
        self,
        left: tuple[str, ...],
        right: tuple[str, ...],
        a: frozenset[str],
        b: frozenset[str],
    ) -> tuple[float, int]:
        """The weight of what both say, and the places of the rarest word of it."""
        both = a & b
        shared = sum(self._weight(word) for word in sorted(both))
        places = self._table.places_with_word
        rarest = min((places.get(word, 1) for word in both), default=self._table.places)
        only_a = [word for word in dict.fromkeys(left) if word not in both]
        only_b = [word for word in dict.fromkeys(right) if word not in both]
        for one, other, whole_other in ((only_a, only_b, right), (only_b, only_a, left)):
            joined = {x + y for x, y in pairwise(whole_other)}
            for word in [w for w in one if w in joined]:
                shared += self._weight(word)
                rarest = min(rarest, places.get(word, 1))
                one.remove(word)
                other[:] = [w for w in other if not (len(w) > 1 and w in word)]
        for word in only_a:
            best, best_likeness = None, 0.0
            for candidate in only_b:
                likeness = _likeness(word, candidate)
                if likeness > best_likeness:
                    best, best_likeness = candidate, likeness
            if best is not None:
                only_b.remove(best)
                shared += best_likeness * min(self._weight(word), self._weight(best))
                rarest = min(rarest, max(places.get(word, 1), places.get(best, 1)))
        return shared, rarest


def _likeness(word: str, other: str) -> float:
    """0 unless one is a misspelling, a plural or a cut form of the other; numbers never are."""
    if word.isdigit() or other.isdigit():
        return 0.0
    short, long = sorted((word, other), key=len)
    if len(short) >= _MIN_PREFIX_LETTERS and long.startswith(short):
        return 0.9
    if len(short) < _MIN_FUZZY_LETTERS - 1 or len(long) < _MIN_FUZZY_LETTERS:
        return 0.0
    likeness = DamerauLevenshtein.normalized_similarity(word, other, score_cutoff=0.75)
    return likeness if likeness >= _ALIKE - (0.05 if len(long) <= 5 else 0.0) else 0.0
