"""Writing to people: consoles, and text from elsewhere made harmless."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_client.protojson import TimeMessage, to_datetime

# Zero-width characters, and those that turn the direction of writing: what one sees would not be
# what is there. Joiners inside emoji and scripts that need them are escaped too: rather ugly than
# deceived.
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def safe(text: str, *, lines: bool = False) -> str:
    """`text` with everything that steers a terminal or hides itself written as an escape.

    Line breaks and tabs stay where `lines` is true.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in _HIDDEN
        else character.encode("unicode_escape").decode()
        for character in (text.replace("\r\n", "\n") if lines else text)
    )


def out() -> Console:
    """What the command gives."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """What the command says beside that."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty())


def person_present() -> bool:
    """Whether somebody can be asked: both a keyboard and a screen are there."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table on stdout; without a terminal one line a row, cells separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(safe(str(cell)) for cell in row) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for number, column in enumerate(columns):
        # The first column is what other commands take: it must never be cut.
        table.add_column(
            column, no_wrap=number == 0, overflow="fold" if number == 0 else "ellipsis"
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(safe(cell)) for cell in row))
    out().print(table)


def print_fields(fields: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values under each other; empty values are left out. Without a terminal one line
    a field, name and value separated by a tab."""
    if not sys.stdout.isatty():
        for name, value in fields:
            if value:
                sys.stdout.write(f"{name}\t{safe(str(value))}\n")
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value:
            table.add_row(name, value if isinstance(value, Text) else Text(safe(value, lines=True)))
    out().print(table)


def age(time: TimeMessage, now: datetime | None = None) -> str:
    """How long ago, in one unit."""
    seconds = int(((now or datetime.now(UTC)) - to_datetime(time)).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return f"{max(seconds, 0)}s ago"


def size(size_bytes: int) -> str:
    """A size for people."""
    value = float(size_bytes)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"


_COLOURS = {
    pb.RUN_STATE_QUEUED: "cyan",
    pb.RUN_STATE_RUNNING: "blue",
    pb.RUN_STATE_WAITING_FOR_APPROVAL: "yellow",
    pb.RUN_STATE_WAITING_FOR_INPUT: "yellow",
    pb.RUN_STATE_REVIEWING: "yellow",
    pb.RUN_STATE_STOPPING: "magenta",
    pb.RUN_STATE_STOPPED: "magenta",
    pb.RUN_STATE_SUCCEEDED: "green",
    pb.RUN_STATE_FAILED: "red",
}


def state_name(state: pb.RunState.ValueType) -> str:
    """A run's state without its prefix; its number when it is newer than this program."""
    if state not in pb.RunState.values():
        return str(int(state))
    return pb.RunState.Name(state).removeprefix("RUN_STATE_")


def state_text(state: pb.RunState.ValueType) -> Text:
    """A run's state in its colour."""
    return Text(state_name(state), style=_COLOURS.get(state, ""))
