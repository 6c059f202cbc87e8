"""Pairs into entities: average-link clustering that weighs agreement against contradiction.

Joining pairs transitively lets one wrong pair fuse two entities. Here two groups are joined only
when all pairs across them together speak for it, the most certain groups first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_DENSE_PROFILES = 300
NOT_COMPARED_SCORE = -4.0
SCORE_LIMIT = 10.0

ScorePairs = Callable[[Integers, Integers], Floats]


def clusters(
    size: int,
    left: Integers,
    right: Integers,
    scores: Floats,
    score_pairs: ScorePairs,
    on_progress: Callable[[int, int], None] | None = None,
) -> Integers:
    """The cluster of each of `size` profiles, numbered by first member.

    `scores` are the pairs' log-odds, negative where they must not be joined. `score_pairs` gives
    the scores of pairs not among them; it is asked only within groups of at most
    MAX_DENSE_PROFILES, beyond that such pairs count NOT_COMPARED_SCORE.
    """
    linked = scores > 0
    parts = _connected(size, left[linked], right[linked])
    known: dict[int, dict[tuple[int, int], float]] = {}
    part_of = np.zeros(size, dtype=np.int64)
    for number, members in enumerate(parts):
        part_of[members] = number
    inside = part_of[left] == part_of[right]
    for one, other, score in zip(
        left[inside].tolist(), right[inside].tolist(), scores[inside].tolist(), strict=True
    ):
        known.setdefault(int(part_of[one]), {})[one, other] = score
    result = np.arange(size, dtype=np.int64)
    for number, members in enumerate(parts):
        if on_progress is not None and number % 2_000 == 1_999:
            on_progress(number + 1, len(parts))
        if len(members) < 2:
            continue
        pairs = known.get(number, {})
        if len(members) <= MAX_DENSE_PROFILES:
            pairs = _completed(members, pairs, score_pairs)
        for group in _joined(members, pairs):
            result[group] = group[0]
    return result


def _connected(size: int, left: Integers, right: Integers) -> list[list[int]]:
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        a, b = root(one), root(other)
        if a != b:
            parent[max(a, b)] = min(a, b)
    parts: dict[int, list[int]] = {}
    for node in range(size):
        parts.setdefault(root(node), []).append(node)
    return [parts[first] for first in sorted(parts)]


def _completed(
    members: list[int], pairs: Mapping[tuple[int, int], float], score_pairs: ScorePairs
) -> dict[tuple[int, int], float]:
    missing = [
        (one, other)
        for at, one in enumerate(members)
        for other in members[at + 1 :]
        if (one, other) not in pairs
    ]
    complete = dict(pairs)
    if missing:
        columns = np.array(missing, dtype=np.int64)
        found = score_pairs(columns[:, 0], columns[:, 1])
        complete.update(zip(missing, found.tolist(), strict=True))
    return complete


def _joined(members: list[int], pairs: Mapping[tuple[int, int], float]) -> list[list[int]]:
    """Groups of `members`, each ascending. Ties are broken by number, so the result is stable."""
    groups = {member: [member] for member in members}
    # sums[a][b] = (total score, pairs scored) across the groups that start at a and b
    sums: dict[int, dict[int, tuple[float, int]]] = {member: {} for member in members}
    heap: list[tuple[float, int, int]] = []

    def mean(a: int, b: int) -> float:
        total, scored = sums[a][b]
        possible = len(groups[a]) * len(groups[b])
        return (total + (possible - scored) * NOT_COMPARED_SCORE) / possible

    for (one, other), raw in pairs.items():
        score = max(-SCORE_LIMIT, min(SCORE_LIMIT, raw))
        sums[one][other] = sums[other][one] = (score, 1)
        if score > 0:
            heap.append((-score, one, other))
    heapq.heapify(heap)
    while heap:
        negative, a, b = heapq.heappop(heap)
        if a not in groups or b not in groups or mean(a, b) != -negative:
            continue
        groups[a] = sorted(groups[a] + groups.pop(b))
        gone = sums.pop(b)
        for other, (total, scored) in gone.items():
            if other == a:
                continue
            before = sums[a].get(other, (0.0, 0))
            sums[a][other] = sums[other][a] = (before[0] + total, before[1] + scored)
            sums[other].pop(b, None)
        sums[a].pop(b, None)
        for other in sums[a]:
            average = mean(a, other)
            if average > 0:
                heapq.heappush(heap, (-average, min(a, other), max(a, other)))
    return [groups[first] for first in sorted(groups)]
