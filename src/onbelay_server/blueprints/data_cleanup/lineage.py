"""The lineage as a picture: where every input row went, and the largest entities row by row."""

from __future__ import annotations

import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from onbelay_server.blueprints.data_cleanup.cleaning import agreed_value, entity_ids
from onbelay_server.blueprints.data_cleanup.pictures import (
    BLUE,
    GREY,
    INK,
    as_svg,
    new_figure,
    shortened,
    styled,
)
from onbelay_server.blueprints.data_cleanup.resolution import Resolution
from onbelay_server.blueprints.data_cleanup.text import repaired

_DETAILED_ENTITIES = 5
_DETAILED_ROWS = 9
# Capitals are the widest: this many fit between the fan of lines and the right edge.
_NAME_CHARACTERS = 38
_NAME_LINES = 3
_MAX_DRAWN_ROWS = 4_000


def lineage_picture(resolution: Resolution) -> str:
    """Left: a line from each input row to its entity (a regular sample of rows when there are too
    many to see). Right: the entities that most different rows went into, with these rows."""
    with styled():
        figure = new_figure(15, 9.5)
        overall, detail = figure.subplots(1, 2, width_ratios=(1, 2.1))
        _draw_all(overall, resolution)
        _draw_detail(detail, resolution)
        return as_svg(figure)


def _draw_all(axes: Axes, resolution: Resolution) -> None:
    entities = entity_ids(resolution)
    rows = len(resolution.table.rows)
    every = max(1, -(-rows // _MAX_DRAWN_ROWS))
    lines: list[list[tuple[float, float]]] = []
    sizes: list[int] = []
    # Largest entities on top: their fans of lines show at a glance what was joined.
    ordered = sorted(entities, key=lambda item: (-len(item[1]), item[0]))
    for at, (_, members) in enumerate(ordered):
        for row in members:
            if row % every == 0:
                lines.append([(0.0, row / max(rows - 1, 1)), (1.0, at / max(len(ordered) - 1, 1))])
                sizes.append(len(members))
    shade = matplotlib.colormaps["viridis_r"](np.clip(np.array(sizes) / 12, 0.1, 1.0))
    axes.add_collection(LineCollection(lines, colors=shade, linewidths=0.35, alpha=0.6))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(1.01, -0.01)
    axes.set_xticks([0, 1], [f"{rows:,} input rows", f"{len(entities):,} entities"])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    sample = f" (every {every}th row drawn)" if every > 1 else ""
    axes.set_title(f"Every row to its entity{sample}", fontsize=12, loc="left")
    axes.set_xlabel("top of the right side: entities of most rows; darker = more rows")


def _draw_detail(axes: Axes, resolution: Resolution) -> None:
    shown = _telling_entities(resolution)
    names = _cells(resolution, "name") or _cells(resolution, "address")
    addresses = _cells(resolution, "address") if names else []
    y = 0.0
    for entity, rows in shown:
        listed = rows[:_DETAILED_ROWS]
        middle = y + (len(listed) - 1) / 2
        title = agreed_value([names[row] for row in rows], "name") if names else entity
        for row in listed:
            place = f"  ·  {shortened(addresses[row], 26)}" if addresses else ""
            text = f"row {row + 1}  {shortened(names[row], 64) if names else ''}{place}"
            axes.text(0.0, y, text, va="center", ha="left", fontsize=7.6)
            axes.plot([0.66, 0.735], [y, middle], color=GREY, linewidth=0.9)
            y += 1
        axes.text(
            0.745, middle - 0.42, f"{entity}  ({len(rows)} rows)", va="center", fontsize=9,
            color=BLUE, fontweight="bold",
        )  # fmt: skip
        axes.text(
            0.745, middle + 0.12, _wrapped(title), va="top", fontsize=7.6, color=INK,
        )  # fmt: skip
        if len(rows) > len(listed):
            axes.text(0.0, y, f"and {len(rows) - len(listed)} more", va="center", fontsize=7.6)
        y += 1.6
    axes.set_xlim(0, 1.06)
    axes.set_ylim(max(y, 1.0), -1)
    axes.axis("off")
    axes.set_title("Entities that most different spellings went into", fontsize=12, loc="left")


def _wrapped(title: str) -> str:
    """A name on as many lines as fit beside two rows, all of it where they hold it."""
    lines = textwrap.wrap(title, _NAME_CHARACTERS) or [""]
    if len(lines) > _NAME_LINES:
        lines[_NAME_LINES - 1] = shortened(" ".join(lines[_NAME_LINES - 1 :]), _NAME_CHARACTERS)
    return "\n".join(lines[:_NAME_LINES])


def _telling_entities(resolution: Resolution) -> list[tuple[str, list[int]]]:
    """The entities with most distinct profiles; each row shown stands for one of them."""
    profile_of_row = resolution.profiles.profile_of_row
    ranked = sorted(
        entity_ids(resolution),
        key=lambda item: (-len({profile_of_row[row] for row in item[1]}), item[0]),
    )
    shown = []
    for entity, rows in ranked[:_DETAILED_ENTITIES]:
        first: dict[int, int] = {}
        for row in rows:
            first.setdefault(profile_of_row[row], row)
        distinct = list(first.values())
        shown.append((entity, distinct + [row for row in rows if row not in set(distinct)]))
    return shown


def _cells(resolution: Resolution, role: str) -> list[str]:
    columns = [c for c in resolution.roles.columns.get(role, "").split("\t") if c]
    if not columns:
        return []
    parts = [resolution.table.column(column) for column in columns]
    return [repaired(" ".join(cells)) for cells in zip(*parts, strict=True)]
