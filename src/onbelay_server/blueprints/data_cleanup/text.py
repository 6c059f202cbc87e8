"""Text of the real world, brought to one form: repaired, folded, cut into name words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

# Text that was encoded as UTF-8 and read as one of these comes back by reversing the mistake.
_MISREAD_AS: Final = ("cp1252", "latin-1", "mac_roman")
_MAX_MISREADS: Final = 3
MAX_CELL_CHARACTERS: Final = 4_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\u200b\ufeff]+")
_SPACES = re.compile(r"\s+")
_INITIALS = re.compile(r"\b(?:[a-z]\.){2,}")
_LETTER_SLASH_LETTER = re.compile(r"\b([a-z])\s*/\s*([a-z])\b")
_LOST_LETTER = re.compile(r"(?<=[a-z])\?(?=[a-z])")
_APOSTROPHES = re.compile(r"[’‘'`´]")
_WORD_BREAKS = re.compile(r"[\W_]+")  # letters of every script make words

_NO_INFORMATION: Final = frozenset(
    {"", "-", "--", "n/a", "na", "nan", "none", "null", "nil", "unknown", "?", ".", "tbd"}
)
_ABBREVIATIONS: Final = {
    "acad": "academy", "assn": "association", "assoc": "association", "bldg": "building",
    "centre": "center", "ch": "church", "cntr": "center", "comm": "community", "ctr": "center",
    "cty": "county", "dept": "department", "edu": "education", "elem": "elementary",
    "fdn": "foundation", "hosp": "hospital", "hse": "house", "inst": "institute",
    "intl": "international", "lrng": "learning", "mt": "mount", "natl": "national",
    "sch": "school", "soc": "society", "st": "saint", "svc": "service", "svcs": "services",
    "univ": "university",
}  # fmt: skip
_LEGAL_AND_STOP: Final = frozenset(
    {"a", "an", "and", "at", "co", "corp", "corporation", "for", "in", "inc", "incorporated",
     "llc", "ltd", "of", "on", "the", "to", "plc", "gmbh", "de", "del", "la", "el"}
)  # fmt: skip
_ROMAN: Final = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7",
                 "viii": "8", "ix": "9"}  # fmt: skip
_ORDINAL_WORDS: Final = {
    "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th",
    "sixth": "6th", "seventh": "7th", "eighth": "8th", "ninth": "9th", "tenth": "10th",
}  # fmt: skip


def repaired(text: str) -> str:
    """`text` without control characters and extra spaces, misread encodings undone.

    Cut at MAX_CELL_CHARACTERS: no comparison gains from more, and a huge cell must stay cheap.
    """
    text = text[:MAX_CELL_CHARACTERS]
    for _ in range(_MAX_MISREADS):
        better = _reread(text)
        if better is None:
            break
        text = better
    text = unicodedata.normalize("NFKC", _CONTROL.sub(" ", text))
    return _SPACES.sub(" ", text).strip()


def _reread(text: str) -> str | None:
    if text.isascii():
        return None
    for encoding in _MISREAD_AS:
        try:
            better = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        plausible = all(unicodedata.category(c)[0] in "LNPSZ" for c in better if not c.isascii())
        if len(better) < len(text) and plausible:
            return better
    return None


def folded(text: str) -> str:
    """Lower case without accents; "" where the cell only says that nothing is known."""
    plain = unicodedata.normalize("NFKD", repaired(text).casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return "" if plain in _NO_INFORMATION else plain


@lru_cache(maxsize=200_000)
def name_words(name: str) -> tuple[str, ...]:
    """The words of an organisation's name in order: abbreviations written out, numerals as
    digits, legal forms and connecting words left out. A name of only such words keeps them."""
    text = folded(name)
    text = _LOST_LETTER.sub("", _APOSTROPHES.sub("", text))
    text = _INITIALS.sub(lambda m: m.group().replace(".", "") + " ", text)
    text = _LETTER_SLASH_LETTER.sub(r"\1\2", text)
    words = [w for w in _WORD_BREAKS.split(text) if w]
    last = len(words) - 1
    written_out = []
    for at, word in enumerate(words):
        if word in _ROMAN and (word != "i" or at == last):
            word = _ROMAN[word]
        word = _ORDINAL_WORDS.get(word, _ABBREVIATIONS.get(word, word))
        written_out.append(word)
    kept = [w for w in written_out if w not in _LEGAL_AND_STOP]
    return tuple(kept or written_out)


def name_numbers(words: tuple[str, ...]) -> frozenset[str]:
    """The numbers in a name ("Site 2", "Academy III" as words): what tells siblings apart."""
    return frozenset(w for w in words if w.isdigit())


def phone_digits(text: str) -> str:
    """A phone's digits without a leading country 1 and without an extension; "" if not a phone."""
    text = re.split(r"(?i)\b(?:ext|x)\.?\s*\d", folded(text))[0]
    digits = "".join(c for c in text if c.isdecimal() and c.isascii())
    if len(digits) == 11 and digits[0] == "1":
        digits = digits[1:]
    if not 7 <= len(digits) <= 15 or len(set(digits)) == 1:
        return ""
    return digits


def zip_code(text: str) -> str:
    """A postal code in capitals without spaces; a US ZIP+4 as its first five digits."""
    code = re.sub(r"[^a-z0-9]", "", folded(text)).upper()
    if code.isdigit():
        if len(code) == 9:
            code = code[:5]
        if len(code) < 5:
            return ""
    return code if 4 <= len(code) <= 10 else ""
