"""Two profiles compared field by field: the levels that the model weighs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from rapidfuzz.distance import DamerauLevenshtein, Levenshtein

from onbelay_server.blueprints.data_cleanup.address import Address
from onbelay_server.blueprints.data_cleanup.names import NameComparison, NameLevel
from onbelay_server.blueprints.data_cleanup.records import Profile, Profiles

NEAR_NUMBERS = 40


class PlaceLevel(IntEnum):
    """Agreement of two places (address, with zip or city beside it), weakest first.

    Zip and city are judged together with the address, not as fields of their own: two neighbours
    always share a zip, so counting it again would make neighbours look alike.
    """

    MISSING = -1
    DIFFERENT = 0
    DIFFERENT_SAME_ZIP = 1
    UNKNOWN_SAME_ZIP = 2
    NEAR = 3
    MISTYPED = 4
    VARIANT = 5
    SAME_OTHER_ZIP = 6
    SAME = 7


class ContactLevel(IntEnum):
    """Agreement of two phones or emails, weakest first."""

    MISSING = -1
    DIFFERENT = 0
    CLOSE = 1
    SAME = 2


class Contradiction(IntEnum):
    """Why two profiles cannot be one entity, whatever else agrees."""

    NONE = 0
    NUMBERED_SIBLINGS = 1
    SIBLINGS = 2
    OTHER_PLACE = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """All levels of one pair; `*_places` is how many places share the agreeing value."""

    name: NameLevel
    place: PlaceLevel
    phone: ContactLevel
    email: ContactLevel
    name_places: int
    phone_places: int
    email_places: int
    numbers_conflict: bool

    @property
    def contradiction(self) -> Contradiction:
        """What a person would object to. The weights of fields add up as if fields were
        independent; siblings of one organisation, which share its name and telephone exchange
        but stand at other addresses, are where that is wrong."""
        if self.place not in _APART:
            return Contradiction.NONE
        if self.numbers_conflict:
            return Contradiction.NUMBERED_SIBLINGS
        if self.place in _FAR_APART:
            own_contact = self.shares_own_contact
            if self.name is NameLevel.MISSING and own_contact:
                return Contradiction.NONE
            if self.name < NameLevel.CONTAINED:
                return Contradiction.SIBLINGS
            return Contradiction.NONE if own_contact else Contradiction.OTHER_PLACE
        if self.name < NameLevel.CONTAINED and ContactLevel.SAME not in (self.phone, self.email):
            return Contradiction.SIBLINGS
        return Contradiction.NONE

    @property
    def shares_own_contact(self) -> bool:
        """Shares a phone or email that is not a switchboard's: found at these two places only."""
        return (self.phone is ContactLevel.SAME and self.phone_places <= 2) or (
            self.email is ContactLevel.SAME and self.email_places <= 2
        )


_FAR_APART = (PlaceLevel.DIFFERENT, PlaceLevel.DIFFERENT_SAME_ZIP)
_APART = (*_FAR_APART, PlaceLevel.NEAR, PlaceLevel.MISTYPED)


class PairComparison:
    """Compares profiles of one table by their numbers."""

    def __init__(self, table: Profiles) -> None:
        self._profiles = table.profiles
        self._contacts = table.places_with_contact
        self._names = NameComparison(table)

    def compare(self, left: int, right: int) -> Comparison:
        """The levels of the profiles with these numbers; the order does not matter."""
        a, b = self._profiles[left], self._profiles[right]
        name = self._names.compare(a.name, b.name)
        phone = _phone_level(a.phone, b.phone)
        email = _email_level(a.email, b.email)
        place = _place_level(a, b)
        return Comparison(
            name=name.level,
            place=place,
            phone=phone,
            email=email,
            name_places=name.places,
            phone_places=self._contacts.get(a.phone[-7:], 1),
            email_places=self._contacts.get(a.email, 1),
            numbers_conflict=name.numbers_conflict,
        )


def _phone_level(a: str, b: str) -> ContactLevel:
    if not a or not b:
        return ContactLevel.MISSING
    if len(a) != len(b):
        a, b = a[-7:], b[-7:]  # one without its area code
    if a == b:
        return ContactLevel.SAME
    if a[-7:-2] == b[-7:-2] or DamerauLevenshtein.distance(a, b, score_cutoff=1) <= 1:
        return ContactLevel.CLOSE
    return ContactLevel.DIFFERENT


def _email_level(a: str, b: str) -> ContactLevel:
    if not a or not b:
        return ContactLevel.MISSING
    if a == b:
        return ContactLevel.SAME
    return (
        ContactLevel.CLOSE
        if DamerauLevenshtein.distance(a, b, score_cutoff=1) <= 1
        else ContactLevel.DIFFERENT
    )


def _place_level(a: Profile, b: Profile) -> PlaceLevel:
    zips = _agree(a.zip, b.zip)
    same_zip = zips if zips is not None else _agree(a.city, b.city)
    if a.address is None or b.address is None:
        return PlaceLevel.UNKNOWN_SAME_ZIP if same_zip else PlaceLevel.MISSING
    level = _address_level(a.address, b.address)
    if level is PlaceLevel.SAME and same_zip is False:
        return PlaceLevel.SAME_OTHER_ZIP
    if level in (PlaceLevel.NEAR, PlaceLevel.MISTYPED, PlaceLevel.VARIANT) and same_zip is False:
        return PlaceLevel.DIFFERENT
    if level is PlaceLevel.DIFFERENT and same_zip:
        return PlaceLevel.DIFFERENT_SAME_ZIP
    return level


def _agree(a: str, b: str) -> bool | None:
    return a == b if a and b else None


@lru_cache(maxsize=500_000)
def _address_level(a: Address, b: Address) -> PlaceLevel:
    if not a.is_complete or not b.is_complete:
        if a.text == b.text:
            return PlaceLevel.SAME
        likeness = Levenshtein.normalized_similarity(a.text, b.text)
        return PlaceLevel.VARIANT if likeness >= 0.9 else PlaceLevel.DIFFERENT
    same_street = a.street == b.street
    alike_street = same_street or _streets_alike(a.street, b.street)
    if not alike_street:
        return PlaceLevel.DIFFERENT
    directions = not a.direction or not b.direction or a.direction == b.direction
    types = not a.street_type or not b.street_type or a.street_type == b.street_type
    if a.low <= b.high and b.low <= a.high:
        if same_street and directions and types:
            return PlaceLevel.SAME
        return PlaceLevel.VARIANT if directions else PlaceLevel.MISTYPED
    if not directions:
        return PlaceLevel.DIFFERENT
    apart = max(a.low - b.high, b.low - a.high)
    if _one_slip(str(a.low), str(b.low)):
        return PlaceLevel.MISTYPED
    return PlaceLevel.NEAR if apart <= NEAR_NUMBERS and types else PlaceLevel.DIFFERENT


def _one_slip(a: str, b: str) -> bool:
    """One digit wrong, missing, doubled, or two swapped, in a number of three digits or more."""
    return min(len(a), len(b)) >= 3 and DamerauLevenshtein.distance(a, b) == 1


@lru_cache(maxsize=100_000)
def _streets_alike(a: str, b: str) -> bool:
    if any(c.isdigit() for c in a + b) and not (set(a.split()) & set(b.split())):
        return False
    words_a, words_b = set(a.split()), set(b.split())
    telling = {w for w in words_a & words_b if len(w) >= 4}
    if telling and (words_a <= words_b or words_b <= words_a):
        return True
    if a.replace(" ", "") == b.replace(" ", ""):
        return True
    likeness = DamerauLevenshtein.normalized_similarity(a, b)
    return likeness >= 0.8 and min(len(a), len(b)) >= 4
