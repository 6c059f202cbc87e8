"""Which pairs are worth comparing: those that share a key, in blocks that cannot explode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onbelay_server.blueprints.data_cleanup.records import Profile, Profiles

MAX_BLOCK_PROFILES = 60
WINDOW_PROFILES = 8
MAX_PAIRS = 2_000_000

Pairs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of profile numbers, left < right, sorted, each once.

    `thinned_blocks` were larger than MAX_BLOCK_PROFILES: in these only neighbours in sorting order
    were paired. `is_capped`: MAX_PAIRS was reached and the last keys were left out.
    """

    left: Pairs
    right: Pairs
    blocks: int
    thinned_blocks: int
    is_capped: bool

    def __len__(self) -> int:
        return len(self.left)


def candidate_pairs(
    table: Profiles, on_progress: Callable[[int, int], None] | None = None
) -> Candidates:
    """Pairs that share any key, at most MAX_PAIRS and never more than linear in the profiles of an
    oversized block. `on_progress(done, total)` counts keys."""
    size = len(table.profiles)
    codes: set[int] = set()
    blocks = thinned = 0
    capped = False
    for done, key in enumerate(_KEYS):
        groups: dict[str, list[int]] = {}
        for number, profile in enumerate(table.profiles):
            for value in dict.fromkeys(key(profile, table)):
                groups.setdefault(value, []).append(number)
        # Small blocks first: they are the telling ones, should the cap be reached.
        for _, members in sorted(groups.items(), key=lambda item: (len(item[1]), item[0])):
            if len(members) < 2:
                continue
            blocks += 1
            reach = len(members)
            if reach > MAX_BLOCK_PROFILES:
                thinned += 1
                reach = WINDOW_PROFILES
                members = sorted(members, key=lambda n: _sorting(table.profiles[n]))
            for at, one in enumerate(members):
                for other in members[at + 1 : at + 1 + reach]:
                    codes.add(min(one, other) * size + max(one, other))
            if len(codes) >= MAX_PAIRS:
                capped = True
                break
        if on_progress is not None:
            on_progress(done + 1, len(_KEYS))
        if capped:
            break
    ordered = np.fromiter(codes, dtype=np.int64, count=len(codes))
    ordered.sort()
    return Candidates(ordered // max(size, 1), ordered % max(size, 1), blocks, thinned, capped)


def _sorting(profile: Profile) -> tuple[tuple[str, ...], str, str, str]:
    address = profile.address.text if profile.address is not None else ""
    return (profile.name, address, profile.phone, profile.email)


def _by_number_and_street(profile: Profile, table: Profiles) -> Iterator[str]:
    address = profile.address
    if address is not None and address.is_complete:
        yield f"{address.low} {address.street[:2]}"
        if address.high != address.low:
            yield f"{address.high} {address.street[:2]}"
    elif address is not None:
        yield address.text


def _by_stretch_of_street(profile: Profile, table: Profiles) -> Iterator[str]:
    address = profile.address
    if address is not None and address.is_complete:
        stretch = address.low // 50
        for near in (stretch, stretch + 1):
            yield f"{address.street} {address.direction} {near}"


def _by_contact(profile: Profile, table: Profiles) -> Iterator[str]:
    if profile.phone:
        yield profile.phone[-7:]
    if profile.email:
        yield profile.email


def _by_rarest_words(profile: Profile, table: Profiles) -> Iterator[str]:
    weighed = sorted(set(profile.name), key=lambda w: (-table.word_weight(w), w))
    yield from weighed[:2]


def _by_whole_name(profile: Profile, table: Profiles) -> Iterator[str]:
    if profile.name:
        yield "".join(sorted(set(profile.name)))
        yield "".join(profile.name)[:8]


def _by_word_and_zip(profile: Profile, table: Profiles) -> Iterator[str]:
    region = profile.zip or profile.city
    if region:
        weighed = sorted(set(profile.name), key=lambda w: (-table.word_weight(w), w))
        for word in weighed[:3]:
            yield f"{word[:5]} {region}"


_KEYS: tuple[Callable[[Profile, Profiles], Iterator[str]], ...] = (
    _by_number_and_street,
    _by_contact,
    _by_whole_name,
    _by_stretch_of_street,
    _by_word_and_zip,
    _by_rarest_words,
)
