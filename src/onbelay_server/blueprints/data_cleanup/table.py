"""A CSV file of unknown making, read as a table: every oddity handled and noted, or refused."""

from __future__ import annotations

import csv
import io
import re
import statistics
from dataclasses import dataclass, field
from typing import Final, Literal

MAX_FILE_BYTES: Final = 200 * 1024 * 1024
MAX_ROWS: Final = 500_000
MAX_COLUMNS: Final = 300
MAX_CELL: Final = 32_000

_DELIMITERS: Final = (",", ";", "\t", "|")
_SIGNATURES: Final = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word document",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a picture",
    b"SQLite format 3": "a SQLite database",
}
_HEADER_WORDS = re.compile(
    r"(?i)\b(id|name|address|addr|street|zip|postal|postcode|phone|tel|telephone|fax|email|e-mail|"
    r"mail|city|town|state|country|date|type|source|code|number|title|company|description|"
    r"website|url|category|site|agency|count|price|amount|year)\b"
)
_DATA_LIKE = re.compile(r"^[\s$€£+-]*[\d(][\d\s.,:/()-]*$|@")


class CleanupError(Exception):
    """The job cannot be done on this input; the message says why, to a person."""


@dataclass(slots=True)
class Table:
    """`rows` all have as many cells as `header`, whose names are unique. `notes` tell a person
    what was odd about the file and what was done about it."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """All cells under a header name. Raises ValueError for an unknown name."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]


def read_table(data: bytes) -> Table:
    """The table in `data`. Raises CleanupError where there is none or it is out of bounds."""
    notes: list[str] = []
    text = _decoded(data, notes)
    if not text.strip():
        raise CleanupError("The file is empty.")
    lines = _parsed(text, notes)
    blank = sum(1 for line in lines if not line)
    lines = [line for line in lines if line]
    if blank:
        notes.append(f"{_counted(blank, 'blank line')} left out.")
    if not lines:
        raise CleanupError("The file has no rows.")
    if _is_header(lines):
        header, rows = lines[0], lines[1:]
        if not rows:
            raise CleanupError("The file has a header but no rows below it.")
    else:
        header, rows = [""] * len(lines[0]), lines
        notes.append("The first line is data, not a header: columns are named by their position.")
    return _squared(header, rows, notes)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _decoded(data: bytes, notes: list[str]) -> str:
    if not data.strip(b"\x00 \r\n\t"):
        raise CleanupError("The file is empty.")
    if len(data) > MAX_FILE_BYTES:
        raise CleanupError(
            f"The file has {len(data):,} bytes; at most {MAX_FILE_BYTES:,} can be cleaned at once."
        )
    for signature, what in _SIGNATURES.items():
        if data.startswith(signature):
            raise CleanupError(f"The file is {what}, not a CSV table. Save it as CSV first.")
    text = _as_unicode(data, notes)
    if "\x00" in text:
        notes.append(f"{_counted(text.count(chr(0)), 'NUL character')} left out.")
        text = text.replace("\x00", "")
    sample = text[:200_000]
    strange = sum(1 for c in sample if (c < " " and c not in "\r\n\t\f\v") or "\x7f" <= c < "\xa0")
    if sample and strange / len(sample) > 0.05:
        raise CleanupError("The file is not text: too many control characters for a CSV table.")
    return text


def _as_unicode(data: bytes, notes: list[str]) -> str:
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        encoding = "utf-32"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        sample = data[:20_000]
        even, odd = sample[0::2].count(0), sample[1::2].count(0)
        if max(even, odd) > 0.3 * len(sample) / 2 and min(even, odd) < 0.05 * len(sample) / 2:
            encoding = "utf-16-le" if odd > even else "utf-16-be"
        else:
            encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if encoding.startswith("utf-16") or encoding == "utf-32":
            text = data.decode(encoding, errors="replace")
            notes.append(f"The file is broken {encoding.upper()}: unreadable characters replaced.")
            return text
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        notes.append("The file is not UTF-8; it was read as Western European (Windows-1252).")
        return text
    if encoding.startswith("utf-16") or encoding == "utf-32":
        notes.append(f"The file is {encoding.upper()} and was read as such.")
    return text


def _parsed(text: str, notes: list[str]) -> list[list[str]]:
    delimiter = _delimiter(text)
    if delimiter != ",":
        notes.append(f"Columns are separated by {'tabs' if delimiter == chr(9) else delimiter!r}.")
    csv.field_size_limit(MAX_FILE_BYTES)
    lines = _read(text, delimiter, csv.QUOTE_MINIMAL)
    swallowed = any(cell.count("\n") > 200 for line in lines for cell in line)
    if swallowed:
        lines = _read(text, delimiter, csv.QUOTE_NONE)
        notes.append("A quotation mark is never closed: quotation marks were read as plain text.")
    return lines


def _read(text: str, delimiter: str, quoting: Literal[0, 3]) -> list[list[str]]:
    lines: list[list[str]] = []
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=False
    )
    try:
        for line in reader:
            lines.append(line)
            if len(lines) > MAX_ROWS + 1:
                raise CleanupError(f"The table has more than {MAX_ROWS:,} rows: split it first.")
            if len(line) > MAX_COLUMNS:
                raise CleanupError(
                    f"Line {reader.line_num:,} has {len(line):,} columns; at most {MAX_COLUMNS} "
                    "can be cleaned. Is the separator right?"
                )
    except csv.Error as error:
        raise CleanupError(f"Line {reader.line_num:,} cannot be read as CSV: {error}.") from error
    return lines


def _delimiter(text: str) -> str:
    sample = text[:64_000]
    best, best_rank = ",", (0.0, 0.0)
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        widths: list[int] = []
        try:
            for line in reader:
                if line:
                    widths.append(len(line))
                if len(widths) >= 200:
                    break
        except csv.Error:
            continue
        if not widths:
            continue
        usual = statistics.mode(widths)
        rank = (widths.count(usual) / len(widths) if usual > 1 else 0.0, float(usual))
        if rank[0] >= 0.5 and (rank[1], rank[0]) > (best_rank[1], best_rank[0]):
            best, best_rank = delimiter, rank
    return best


def _is_header(lines: list[list[str]]) -> bool:
    """Names stand on top when no cell of the first line looks like data, and they name things or
    do not come again below."""
    first = [cell.strip() for cell in lines[0]]
    named = [cell for cell in first if cell]
    if not named or any(_DATA_LIKE.search(cell) for cell in named):
        return False
    if any(_HEADER_WORDS.search(re.sub(r"[_\-.]+|(?<=[a-z])(?=[A-Z])", " ", c)) for c in named):
        return True
    if len(lines) == 1:
        return len(named) > 1
    below = lines[1:500]
    for at, cell in enumerate(first):
        if cell and any(len(line) > at and line[at].strip() == cell for line in below):
            return False
    body = [len(line[0].split()) for line in below if line and line[0].strip()]
    return len(first) > 1 or (bool(body) and len(first[0].split()) < statistics.mean(body))


def _squared(header: list[str], rows: list[list[str]], notes: list[str]) -> Table:
    width = max(len(header), max(len(row) for row in rows))
    short = sum(1 for row in rows if len(row) < len(header))
    long = sum(1 for row in rows if len(row) > len(header))
    if short:
        notes.append(f"{_counted(short, 'row')} shorter than the header: missing cells are empty.")
    if long:
        notes.append(
            f"{_counted(long, 'row')} longer than the header: extra cells are kept in columns of "
            "their own."
        )
    names: list[str] = []
    renamed = 0
    seen: set[str] = set()
    for at in range(width):
        given = " ".join(header[at].split())[:200] if at < len(header) else ""
        name = given or (f"column_{at + 1}" if at < len(header) else f"extra_{at + 1}")
        unique, count = name, 2
        while unique in seen:
            unique, count = f"{name}_{count}", count + 1
        renamed += unique != name
        seen.add(unique)
        names.append(unique)
    if renamed:
        notes.append(f"{_counted(renamed, 'column name')} used twice: numbered.")
    cut = 0
    squared: list[list[str]] = []
    for row in rows:
        cells = row + [""] * (width - len(row))
        for at, cell in enumerate(cells):
            if len(cell) > MAX_CELL:
                cells[at] = cell[:MAX_CELL]
                cut += 1
        squared.append(cells)
    if cut:
        notes.append(f"{_counted(cut, 'cell')} longer than {MAX_CELL:,} characters cut there.")
    return Table(names, squared, notes)
