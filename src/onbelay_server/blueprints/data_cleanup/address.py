"""Postal addresses cut into parts that can be compared: number, direction, street, type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from onbelay_server.blueprints.data_cleanup.text import folded

_DIRECTIONS: Final = {
    "n": "n", "north": "n", "no": "n", "s": "s", "south": "s", "so": "s", "e": "e",
    "east": "e", "w": "w", "west": "w", "ne": "ne", "nw": "nw", "se": "se", "sw": "sw",
    "northeast": "ne", "northwest": "nw", "southeast": "se", "southwest": "sw",
}  # fmt: skip
_TYPES: Final = {
    "street": "st", "st": "st", "str": "st", "avenue": "ave", "ave": "ave", "av": "ave",
    "aven": "ave", "avn": "ave", "boulevard": "blvd", "blvd": "blvd", "bl": "blvd",
    "boul": "blvd", "bvd": "blvd", "road": "rd", "rd": "rd", "drive": "dr", "dr": "dr",
    "drv": "dr", "place": "pl", "pl": "pl", "court": "ct", "ct": "ct", "lane": "ln",
    "ln": "ln", "parkway": "pkwy", "pkwy": "pkwy", "pky": "pkwy", "terrace": "ter",
    "ter": "ter", "terr": "ter", "tr": "ter", "highway": "hwy", "hwy": "hwy",
    "square": "sq", "sq": "sq", "plaza": "plz", "plz": "plz", "circle": "cir", "cir": "cir",
    "trail": "trl", "trl": "trl", "way": "way", "wy": "way", "expressway": "expy",
    "expy": "expy", "alley": "aly", "crescent": "cres",
}  # fmt: skip
_UNIT_WORDS: Final = frozenset(
    {"suite", "ste", "apt", "apartment", "unit", "floor", "fl", "room", "rm", "building",
     "bldg", "lower", "upper", "level", "dept", "box", "rear", "basement"}
)  # fmt: skip
_STREET_WORDS: Final = {
    "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th",
    "sixth": "6th", "seventh": "7th", "eighth": "8th", "ninth": "9th", "tenth": "10th",
    "saint": "st", "mount": "mt", "doctor": "dr", "martin": "m", "luther": "l", "jr": "",
}  # fmt: skip
_NUMBER = re.compile(
    r"^\s*(?P<low>\d{1,6})(?P<half>\s+1/2)?[a-d]?(?:[\s?]*[-–—/&]\s*(?P<high>\d{1,6})[a-d]?)?"
    r"(?=[\s.,])"
)
_NUMBER_DASH_ORDINAL = re.compile(r"^(\d{1,6})-(?=\d+(?:st|nd|rd|th)\b)")
_TWO_NUMBERS = re.compile(r"^(\d{2,6})\s+(\d{2,6})(?=\s+[nsew]\b)")
_SOMEWHERE = re.compile(r"(?:^|[\s,;(])(?=\d{1,6}(?:-\d+)?[a-d]?\s+\w)")
_ORDINAL = re.compile(r"^0*(\d+)(?:(?:st|nd|rd|th|ts|h)[a-z]?)?$")


@dataclass(frozen=True, slots=True)
class Address:
    """One parsed address. `low`–`high` is the house number (equal unless a range, 0 if none);
    the other parts are "" where the text does not say. `text` is everything, folded."""

    text: str
    low: int
    high: int
    direction: str
    street: str
    street_type: str

    @property
    def is_complete(self) -> bool:
        """Says house number and street: two such addresses can contradict each other."""
        return self.low > 0 and self.street != ""

    @property
    def key(self) -> str:
        """Equal for addresses that certainly name the same place."""
        if not self.is_complete:
            return self.text
        return f"{self.low} {self.direction} {self.street} {self.street_type}"


@lru_cache(maxsize=200_000)
def parsed_address(text: str) -> Address | None:
    """The parts of `text`, or None when it holds no address at all. Never raises."""
    flat = folded(text.replace("\n", ", "))
    flat = re.sub(r"[’'`´]", "", flat)
    if not re.search(r"[^\W_]", flat):
        return None
    words_of_text = " ".join(re.findall(r"[^\W_]+", flat))
    flat = flat.lstrip(" ,.;#")
    flat = _NUMBER_DASH_ORDINAL.sub(r"\1 ", flat)
    flat = _TWO_NUMBERS.sub(r"\1-\2", flat)
    number = _NUMBER.match(flat)
    if number is None:
        start = _SOMEWHERE.search(flat)
        if start is not None:
            flat = flat[start.end() :]
            number = _NUMBER.match(flat)
    if number is None:
        return Address(words_of_text, 0, 0, "", "", "")
    low = int(number["low"])
    high = _end_of_range(low, number["high"])
    direction, street, street_type = _street_parts(flat[number.end() :])
    return Address(words_of_text, low, high, direction, street, street_type)


def _end_of_range(low: int, written: str | None) -> int:
    """The last number of "1333-45" (1345) or "1710-1718"; `low` where it makes no range."""
    if not written:
        return low
    digits = str(low)
    full = written if len(written) >= len(digits) else digits[: -len(written)] + written
    high = int(full)
    return high if low < high <= low + 200 else low


def _street_parts(rest: str) -> tuple[str, str, str]:
    words = re.findall(r"[^\W_]+|[,;#(]", rest.replace(".", " "))
    while words and words[0] in {",", ";", "#", "("}:
        words = words[1:]
    direction = ""
    # "12 South St": a direction before a lone type is the street's name.
    names_street = len(words) == 2 and words[1] in _TYPES
    if (
        len(words) > 1
        and words[0] in _DIRECTIONS
        and words[1] not in {",", ";"}
        and not names_street
    ):
        direction = _DIRECTIONS[words[0]]
        words = words[1:]
    street: list[str] = []
    street_type = ""
    for at, word in enumerate(words):
        if word in {",", ";", "#", "("} or (word in _UNIT_WORDS and street):
            break
        if word in _TYPES and street:
            street_type = _TYPES[word]
            break
        if at and word in _DIRECTIONS and not direction and street:
            direction = _DIRECTIONS[word]
            break
        street.append(word)
    if not street and street_type == "" and words and words[0] in _TYPES:
        street = [words[0]]
    if len(street) > 1 and street[1] in {"st", "nd", "rd", "th"}:
        street = [street[0] + street[1], *street[2:]]
    while len(street) > 1 and street[-1].isdigit():
        street.pop()  # a unit written without its word
    name = " ".join(part for part in map(_street_word, street) if part)
    return direction, name, street_type


def _street_word(word: str) -> str:
    ordinal = _ORDINAL.match(word)
    return ordinal.group(1) if ordinal else _STREET_WORDS.get(word, word)
