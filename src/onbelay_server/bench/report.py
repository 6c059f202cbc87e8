"""The findings as a table, for terminals and for pages, and as a bar chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from onbelay_server.bench.figure import Figure
from onbelay_server.bench.suite import Findings

_MET, _MISSED, _OPEN = "#3a7d44", "#b5382a", "#8a8a8a"


_COLUMNS = ("", "figure", "store", "value", "limit", "ratio", "target", "")
_RIGHT = frozenset({"value", "ratio", "target"})
_VERDICT = {None: "", True: "met", False: "MISSED"}
_STYLE = {"met": "green", "MISSED": "red"}


def table(findings: Findings) -> Table:
    """A row a figure: value, what it is divided by, ratio, target, met or not."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        made.add_column(name, justify="right" if name in _RIGHT else "left")
    for figure in findings.figures:
        *cells, verdict = _cells(figure)
        made.add_row(*cells, Text(verdict, _STYLE.get(verdict, "")))
    return made


def markdown(findings: Findings) -> str:
    """The same table for a page."""
    lines = [_COLUMNS, ["---:" if name in _RIGHT else "---" for name in _COLUMNS]]
    lines += [_cells(figure) for figure in findings.figures]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(figure: Figure) -> list[str]:
    limit = figure.limit
    if figure.limit_value is not None:
        limit += f" {number(figure.limit_value)}"
    return [
        figure.row,
        figure.what,
        figure.variant,
        f"{number(figure.value)} {figure.unit}" if figure.value is not None else "–",
        limit,
        number(figure.ratio) if figure.ratio is not None else "",
        str(figure.target) if figure.target is not None else "",
        _VERDICT[figure.is_met],
    ]


def number(value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:,.2f} M"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw(findings: Findings, path: Path) -> None:
    """A bar a figure that has a target: how much of it is reached, on a logarithmic scale. The
    suffix of `path` decides the kind of picture. Raises ImportError without matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Picture

    judged = [figure for figure in findings.figures if figure.is_met is not None]
    picture = Picture(figsize=(9, 1.2 + 0.32 * max(len(judged), 1)), layout="constrained")
    axes: Any = picture.subplots()
    names = [f"{one.row}  {one.what}  ({one.variant})" for one in judged]
    reached = [_reached(one) for one in judged]
    colors = [_MET if one.is_met else _MISSED for one in judged]
    axes.barh(range(len(judged)), [max(one, 0.01) for one in reached], color=colors)
    axes.set_yticks(range(len(judged)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1.0, color=_OPEN, linewidth=1)
    for at, value in enumerate(reached):
        axes.text(max(value, 0.01), at, f" {value:.2f}", va="center", fontsize=8)
    axes.set_xlabel("share of the target that is reached (1 = met)")
    axes.margins(x=0.15)
    # Text stays text: a tenth of the size, and it can be searched.
    with rc_context({"svg.fonttype": "none"}):
        picture.savefig(path)


def _reached(figure: Figure) -> float:
    judged = figure.ratio if figure.limit else figure.value
    assert judged is not None, "only judged figures are drawn"
    assert figure.target is not None, "only judged figures are drawn"
    bound = figure.target.bound
    return bound / judged if figure.target.is_most else judged / bound
