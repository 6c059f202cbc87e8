"""Untrusted text in a form that shows what it is.

Characters that a terminal or browser acts on instead of showing (escape sequences, direction
overrides, zero-width and private characters) are written out as `\\u{202E}`, and long runs of
blanks, which push what follows out of sight, as `\\u{20}×400`. What is hashed, compared and
executed is always the original.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"})
_SUSPECT = re.compile(r"[^\x20-\x7e\n\t]")
_BLANKS = re.compile(r"([^\S\n\t])\1{63,}|\n{17,}|\t{17,}")


def shown(text: str, *, lines: bool = False) -> str:
    """The display form of a text; `lines` lets line ends and tabs stand."""
    kept = _SUSPECT.sub(_written_out, text)
    if not lines:
        kept = kept.replace("\n", "\\u{A}").replace("\t", "\\u{9}")
    return _BLANKS.sub(_counted, kept)


def shown_json(text: str) -> str:
    """JSON text whose strings hide nothing: the same value, with `\\uXXXX` for such characters.

    They can only stand within its strings, where both forms mean the same.
    """
    return _SUSPECT.sub(_json_escaped, text)


def shown_line(text: str, max_characters: int) -> str:
    """The display form of a one-line text, cut with an ellipsis where it is longer than allowed."""
    line = shown(text)
    return line if len(line) <= max_characters else line[: max_characters - 1] + "…"


def _written_out(match: re.Match[str]) -> str:
    character = match[0]
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return f"\\u{{{ord(character):X}}}"


def _json_escaped(match: re.Match[str]) -> str:
    character = match[0]
    if unicodedata.category(character) not in _HIDDEN:
        return character
    escaped: Any = json.dumps(character)
    return str(escaped)[1:-1]


def _counted(match: re.Match[str]) -> str:
    return f"\\u{{{ord(match[0][0]):X}}}×{len(match[0])}"
