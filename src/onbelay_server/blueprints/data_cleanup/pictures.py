"""The report's pictures as SVG text, the same bytes for the same resolution."""

from __future__ import annotations

import io
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from onbelay_server.blueprints.data_cleanup.resolution import Resolution

INK, GREY, BLUE, ORANGE, GREEN, RED = (
    "#1d2733", "#c3ccd6", "#2f6db3", "#d9822b", "#3a8f5c", "#b8433f",
)  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "data-cleanup",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in data is a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_MAX_COLUMNS_SHOWN = 24
_DRAWING = threading.Lock()


def new_figure(width: float, height: float) -> Figure:
    """A figure of our own (inches): no global state of the plotting library is touched."""
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def styled() -> Iterator[None]:
    """The context in which every picture is drawn and saved, one at a time: the library's style is
    the process's, and the thread of an abandoned attempt may still be drawing."""
    with _DRAWING, matplotlib.rc_context(_STYLE):
        yield


def as_svg(figure: Figure) -> str:
    """The figure as SVG without dates or random ids. Signs the font lacks are drawn as boxes."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def shortened(text: str, length: int) -> str:
    """`text` cut to `length` characters, the cut shown."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _bar_labels(axes: Axes, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)))
    axes.set_yticklabels(labels)
    axes.invert_yaxis()


def profile_picture(profile: dict[str, Any]) -> str:
    """How full each column is; the columns used to tell entities apart stand out."""
    columns = sorted(profile["columns"], key=lambda c: (c["role"] == "", -c["filled"], c["name"]))[
        :_MAX_COLUMNS_SHOWN
    ]
    with styled():
        figure = new_figure(8, 1.1 + 0.27 * len(columns))
        axes = figure.subplots()
        filled = [100 * column["filled"] for column in columns]
        colours = [BLUE if column["role"] else GREY for column in columns]
        axes.barh(range(len(columns)), filled, color=colours, height=0.72)
        labels = []
        for at, column in enumerate(columns):
            role = f"  ({column['role']})" if column["role"] else ""
            labels.append(shortened(column["name"], 32) + role)
            axes.text(
                filled[at] + 1, at, f"{filled[at]:.0f} %, {column['distinct']:,} distinct",
                va="center", fontsize=8.5,
            )  # fmt: skip
        _bar_labels(axes, labels)
        axes.set_xlim(0, 128)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlabel("rows in which the column is filled, %  (blue: used to tell entities)")
        return as_svg(figure)


def rules_picture(rules: dict[str, Any]) -> str:
    """How many pairs of rows each rule joins and each guard refuses."""
    bars = [
        (rule["title"], rule["row_pairs"], rule["estimated_precision"], BLUE)
        for rule in rules["rules"]
    ] + [
        (f"Refused: {guard['title'].lower()}", guard["refused_row_pairs"], None, RED)
        for guard in rules["guards"]
    ]
    with styled():
        figure = new_figure(8, 1.1 + 0.42 * len(bars))
        axes = figure.subplots()
        counts = [bar[1] for bar in bars]
        axes.barh(range(len(bars)), counts, color=[bar[3] for bar in bars], height=0.66)
        most = max([1, *counts])
        for at, (_, count, right, _) in enumerate(bars):
            believed = f", {right:.1%} believed right" if right is not None else ""
            axes.text(count + most * 0.01, at, f"{count:,}{believed}", va="center", fontsize=9)
        _bar_labels(axes, [shortened(bar[0], 52) for bar in bars])
        axes.set_xlim(0, most * 1.8)
        axes.set_xlabel("pairs of rows")
        return as_svg(figure)


def certainty_picture(resolution: Resolution) -> str:
    """How sure the model is of the pairs it compared, by what became of them."""
    with styled():
        figure = new_figure(8, 3.1)
        axes = figure.subplots()
        bits = np.clip(resolution.scores / np.log(2), -25, 25)
        edges = np.linspace(-25, 25, 51)
        together = resolution.together
        refused = ~together & (resolution.scores > 0)
        apart = ~together & ~refused
        groups = [bits[apart], bits[together], bits[refused]]
        axes.hist(
            groups, bins=edges.tolist(), stacked=True, color=[GREY, BLUE, RED],
            label=["kept apart", "joined", "likelier than not, kept apart all the same"],
        )  # fmt: skip
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
        axes.set_xlabel("evidence for “same entity”, in bits (0 = even, 10 = a thousand to one)")
        axes.set_ylabel("pairs compared")
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.legend(
            frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3
        )
        return as_svg(figure)


def sizes_picture(resolution: Resolution) -> str:
    """How many rows the entities are made of."""
    sizes = Counter(min(len(rows), 20) for rows in resolution.entities())
    with styled():
        figure = new_figure(8, 3.0)
        axes = figure.subplots()
        at = sorted(sizes)
        axes.bar(at, [sizes[size] for size in at], color=BLUE, width=0.74)
        for size in at:
            axes.text(size, sizes[size], f"{sizes[size]:,}", ha="center", va="bottom", fontsize=9)
        ticks = list(range(1, max(at, default=1) + 1))
        axes.set_xticks(ticks, [str(t) if t < 20 else "20+" for t in ticks])
        axes.set_xlabel("input rows in the entity")
        axes.set_ylabel("entities")
        return as_svg(figure)
