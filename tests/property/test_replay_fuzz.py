"""Random agent programs replay from every prefix of their log; changed ones are found out."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from tests.property.replay_mutations import check_mutations
from tests.property.replay_programs import check, program
from tests.property.replay_world import World


@pytest.mark.parametrize("first", range(1, 9))
def test_programs_replay_from_every_prefix(first: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first * 1000, first * 1000 + 20):
        asyncio.run(check(seed, 6, counts))
    assert counts["programs"] == 20
    assert counts["crash points"] > 50
    assert counts["pauses"] > 20


def test_changed_code_is_found_and_harmless_changes_are_not() -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        asyncio.run(check_mutations(seed, counts))
    assert counts["real True"] > 80
    assert counts["harmless False"] > 80
    assert not counts["surprises"]


def test_programs_of_other_code_are_held() -> None:
    """The log of one program against the code of another: never quietly accepted as its own."""
    verdicts: Counter[str] = Counter()
    for seed in range(40):
        verdicts[asyncio.run(_replayed_as(seed + 100, seed + 101))] += 1
    assert verdicts["diverged"] >= 30, verdicts


async def _replayed_as(recorded: int, found: int) -> str:
    baseline = await World(program, recorded, random.Random(recorded)).undisturbed()
    world = World(program, found, random.Random(found))
    return await world.replayed(baseline)
