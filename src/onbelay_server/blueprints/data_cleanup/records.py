"""Rows brought to comparable form, and equal ones folded into profiles.

A *profile* is what a row says about its entity after normalising. Rows with the same profile are
the same entity, so everything after this works on profiles and weighs them by their rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onbelay_server.blueprints.data_cleanup.address import Address, parsed_address
from onbelay_server.blueprints.data_cleanup.text import (
    folded,
    name_words,
    phone_digits,
    zip_code,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """One distinct description of an entity. Empty parts are "" (address: None)."""

    name: tuple[str, ...]
    address: Address | None
    zip: str
    city: str
    phone: str
    email: str

    @property
    def is_empty(self) -> bool:
        """Says nothing that could identify anything."""
        return not self.name and self.address is None and not self.phone and not self.email


@dataclass(frozen=True, slots=True)
class RowFields:
    """The raw cells of one row that tell what the row is about."""

    name: str = ""
    address: str = ""
    zip: str = ""
    city: str = ""
    phone: str = ""
    email: str = ""


@dataclass(slots=True)
class Profiles:
    """All profiles of a table, the rows of each (0-based, ascending), and how common words are.

    `places` counts the distinct places (addresses, else distinct names). `places_with_word`,
    `places_with_name` and `places_with_contact` count the places at which a word, a whole name, a
    phone or an email occurs: copies of one site in many lists must not make its name look common.
    """

    profiles: list[Profile] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    profile_of_row: list[int] = field(default_factory=list)
    places: int = 0
    places_with_word: dict[str, int] = field(default_factory=dict)
    places_with_name: dict[frozenset[str], int] = field(default_factory=dict)
    places_with_contact: dict[str, int] = field(default_factory=dict)

    def word_weight(self, word: str) -> float:
        """How much the word tells (nats): 0 when it is at every place."""
        return math.log((self.places + 1) / (self.places_with_word.get(word, 0) + 0.5))


def profile_of(row: RowFields) -> Profile:
    """The row in comparable form. Never raises, whatever the cells hold."""
    email = folded(row.email)
    return Profile(
        name=name_words(row.name) if folded(row.name) else (),
        address=parsed_address(row.address),
        zip=zip_code(row.zip),
        city=" ".join(name_words(row.city)) if folded(row.city) else "",
        phone=phone_digits(row.phone)[-10:],
        email=email if "@" in email else "",
    )


def fold_rows(
    rows: Sequence[RowFields], on_progress: Callable[[int, int], None] | None = None
) -> Profiles:
    """Profiles of `rows` in order of first appearance. Rows that say nothing are never folded.

    `on_progress(done, total)` is called about every five thousand rows.
    """
    folded_rows = Profiles()
    index: dict[Profile, int] = {}
    for at, row in enumerate(rows):
        profile = profile_of(row)
        number = None if profile.is_empty else index.get(profile)
        if number is None:
            number = len(folded_rows.profiles)
            folded_rows.profiles.append(profile)
            folded_rows.rows.append([])
            if not profile.is_empty:
                index[profile] = number
        folded_rows.rows[number].append(at)
        folded_rows.profile_of_row.append(number)
        if on_progress is not None and at % 5_000 == 4_999:
            on_progress(at + 1, len(rows))
    _count_places(folded_rows)
    return folded_rows


def _count_places(table: Profiles) -> None:
    words: dict[str, set[str]] = {}
    names: dict[frozenset[str], set[str]] = {}
    contacts: dict[str, set[str]] = {}
    places: set[str] = set()
    for profile in table.profiles:
        if profile.is_empty:
            continue
        address = profile.address
        if address is None:
            place = "name " + " ".join(sorted(profile.name))
        else:  # without type and direction, which lists leave out at will
            place = f"{address.low} {address.street}" if address.is_complete else address.text
        places.add(place)
        for word in profile.name:
            words.setdefault(word, set()).add(place)
        names.setdefault(frozenset(profile.name), set()).add(place)
        for contact in (profile.phone[-7:], profile.email):
            if contact:
                contacts.setdefault(contact, set()).add(place)
    table.places = len(places)
    table.places_with_word = {word: len(at) for word, at in words.items()}
    table.places_with_name = {name: len(at) for name, at in names.items()}
    table.places_with_contact = {contact: len(at) for contact, at in contacts.items()}
