"""Which column says what: found from the header and from the cells, never from a fixed layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from onbelay_server.blueprints.data_cleanup.address import parsed_address
from onbelay_server.blueprints.data_cleanup.records import RowFields
from onbelay_server.blueprints.data_cleanup.table import CleanupError, Table
from onbelay_server.blueprints.data_cleanup.text import folded, phone_digits, zip_code

ROLES: Final = ("id", "name", "address", "zip", "city", "phone", "email", "source")
_SAMPLE_ROWS = 2_000

_HINTS: Final[dict[str, tuple[str, ...]]] = {
    "id": (r"^id$", r"^(record|row|unique|object)[ _-]?id$", r"^key$", r"_id$", r"\bid$"),
    "name": (
        r"^(site|facility|organi[sz]ation|company|business|provider|school|center|venue|"
        r"restaurant|customer|account|vendor|full|entity)[ _-]?name$",
        r"^name$", r"^(company|organi[sz]ation|business|facility|restaurant|title)$", r"name",
    ),
    "address": (r"^(street[ _-]?)?address([ _-]?1)?$", r"^street$", r"addr", r"street"),
    "zip": (r"^(zip|postal|post)[ _-]?(code)?$", r"zip", r"post(al|code)"),
    "city": (r"^(city|town|locality|municipality)$", r"city"),
    "phone": (r"^(tele)?phone([ _-]?(number|no))?$", r"phone", r"^tel", r"mobile"),
    "email": (r"^e[ _-]?mail([ _-]?address)?$", r"mail"),
    "source": (r"^(data[ _-]?)?source$", r"^(list|origin|file)$"),
}  # fmt: skip
_UNWANTED: Final = {
    "phone": r"fax",
    "name": r"(first|last|user|file|program|contact|director|street|city)[ _-]?name",
    "address": r"mail(?!ing)|web|ip[ _-]?addr|url",
}


@dataclass(frozen=True, slots=True)
class Roles:
    """The header name that plays each role, or "" for none. `name` may be two columns (first and
    last name), joined by a tab."""

    columns: Mapping[str, str]

    def of(self, column: str) -> str:
        """The role of a column, or ""."""
        for role, name in self.columns.items():
            if column in name.split("\t"):
                return role
        return ""

    def rows(self, table: Table) -> list[RowFields]:
        """The cells that tell what each row is about."""
        cells: dict[str, list[str]] = {}
        for role in ("name", "address", "zip", "city", "phone", "email"):
            parts = [table.column(c) for c in self.columns.get(role, "").split("\t") if c]
            if parts:
                cells[role] = [" ".join(p for p in row if p) for row in zip(*parts, strict=True)]
        nothing = [""] * len(table.rows)
        columns = [
            cells.get(role, nothing)
            for role in ("name", "address", "zip", "city", "phone", "email")
        ]
        return [RowFields(*row) for row in zip(*columns, strict=True)]


def detect_roles(table: Table, given: Mapping[str, str] | None = None) -> Roles:
    """The roles of the columns; `given` (role → header name) overrules what was found.

    Raises CleanupError when `given` names an unknown role or column, or when no column says what
    a row is about.
    """
    given = given or {}
    for role, name in given.items():
        if role not in ROLES:
            raise CleanupError(f"{role!r} is not a role; roles are {', '.join(ROLES)}.")
        if name and name not in table.header:
            raise CleanupError(f"The table has no column {name!r} to use as {role}.")
    samples = {
        name: [row[at] for row in table.rows[:_SAMPLE_ROWS]] for at, name in enumerate(table.header)
    }
    found: dict[str, str] = {role: name for role, name in given.items() if name}
    taken = set(found.values())
    for role in ("email", "phone", "zip", "address", "id", "source", "city"):
        if role in given:
            continue
        best = _best(role, samples, taken)
        if best:
            found[role] = best
            taken.add(best)
    if "name" not in given:
        found["name"] = _name_column(samples, taken)
    if not any(found.get(role) for role in ("name", "address", "phone", "email")):
        raise CleanupError(
            "No column looks like a name, an address, a phone or an e-mail address: there is "
            "nothing to tell entities by. Say which columns to use with the setting `columns`."
        )
    return Roles({role: found[role] for role in ROLES if found.get(role)})


def _hint(role: str, header: str) -> float:
    plain = header.strip().lower()
    unwanted = _UNWANTED.get(role)
    if unwanted and re.search(unwanted, plain):
        return -0.6
    for rank, pattern in enumerate(_HINTS[role]):
        if re.search(pattern, plain):
            return 1.0 - 0.15 * rank
    return 0.0


def _best(role: str, samples: Mapping[str, list[str]], taken: set[str]) -> str:
    ranked = []
    for at, (name, cells) in enumerate(samples.items()):
        if name in taken:
            continue
        filled = [cell for cell in cells if folded(cell)]
        if not filled:
            continue
        fit = _fit(role, filled)
        hint = _hint(role, name)
        by_content = role in ("email", "phone", "address") and fit >= 0.7 and hint >= 0
        if fit < 0.3 or not (hint > 0 or by_content):
            continue
        ranked.append((hint + fit + 0.5 * len(filled) / len(cells), -at, name))
    return max(ranked)[2] if ranked else ""


def _fit(role: str, filled: list[str]) -> float:
    """How large a part of the cells could play the role."""
    distinct = len(set(filled)) / len(filled)
    if role == "id":
        return 1.0 if distinct == 1.0 and max(len(cell) for cell in filled) <= 64 else 0.0
    if role == "source":
        return 1.0 if distinct <= 0.2 or len(filled) < 20 else 0.0
    if role == "city":
        return sum(1 for cell in filled if not any(c.isdigit() for c in cell)) / len(filled)
    fits = {"email": _is_email, "phone": _is_phone, "zip": _is_zip, "address": _is_address}[role]
    return sum(1 for cell in filled if fits(cell)) / len(filled)


def _is_email(cell: str) -> bool:
    return re.fullmatch(r"\s*[^@\s]+@[^@\s]+\.\w+\s*", cell) is not None


def _is_zip(cell: str) -> bool:
    return len(cell.strip()) <= 10 and zip_code(cell) != "" and any(c.isdigit() for c in cell)


def _is_address(cell: str) -> bool:
    address = parsed_address(cell)
    return address is not None and address.is_complete and any(c.isalpha() for c in cell)


def _is_phone(cell: str) -> bool:
    letters = sum(1 for c in cell if c.isalpha())
    dots = re.fullmatch(r"\s*-?\d+\.\d{1,6}\s*", cell)  # a decimal number
    return bool(phone_digits(cell)) and letters <= 4 and not dots and len(cell.strip()) <= 30


def _name_column(samples: Mapping[str, list[str]], taken: set[str]) -> str:
    lowered = {re.sub(r"[ _-]", "", name.lower()): name for name in samples}
    if "firstname" in lowered and "lastname" in lowered:
        return f"{lowered['firstname']}\t{lowered['lastname']}"
    ranked = []
    for at, (name, cells) in enumerate(samples.items()):
        filled = [cell for cell in cells if folded(cell)]
        if name in taken or not filled:
            continue
        wordy = sum(1 for c in filled if sum(x.isalpha() for x in c) >= 2) / len(filled)
        long = sum(1 for c in filled if len(c) > 150) / len(filled)
        if wordy < 0.5 or long > 0.5:
            continue
        distinct = len(set(filled)) / len(filled)
        fill = len(filled) / len(cells)
        ranked.append((_hint("name", name) + fill + 0.8 * distinct, -at, name))
    return max(ranked)[2] if ranked else ""
