"""The report a manager reads: one self-contained HTML file. All data in it is escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from onbelay_server.blueprints.data_cleanup import pictures
from onbelay_server.blueprints.data_cleanup.cleaning import agreed_value, entity_ids
from onbelay_server.blueprints.data_cleanup.page import believed_right, counted
from onbelay_server.blueprints.data_cleanup.proposal import samples
from onbelay_server.blueprints.data_cleanup.resolution import Resolution
from onbelay_server.blueprints.data_cleanup.rules import RULE_NAMES
from onbelay_server.blueprints.data_cleanup.text import repaired

_TO_CHECK = 10
_LARGEST = 8


def report_html(
    resolution: Resolution,
    profile: dict[str, Any],
    rules: dict[str, Any],
    approved: dict[str, str] | None = None,
    rejected: str | None = None,
    expired: bool = False,
) -> str:
    """The report on `resolution` under the proposal `rules`. `approved` is {by, comment};
    `rejected` is what the person said when nothing was to be applied, `expired` that nobody did."""
    drawn = {}
    jobs: dict[str, Callable[[], str]] = {
        "profile": lambda: pictures.profile_picture(profile),
        "rules": lambda: pictures.rules_picture(rules),
        "certainty": lambda: pictures.certainty_picture(resolution),
        "sizes": lambda: pictures.sizes_picture(resolution),
    }
    for name, draw in jobs.items():
        drawn[name] = _data_url(draw())
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        profile=profile,
        rules=rules,
        approved=approved,
        rejected="" if expired else rejected,
        expired=expired,
        pictures=drawn,
        largest=_largest(resolution),
        merged_rows=sum(len(rows) for rows in resolution.entities() if len(rows) > 1),
        weakest_joined=_weakest_joined(resolution),
        strongest_apart=_strongest_apart(resolution),
        count=lambda number: f"{number:,}",
        counted=counted,
        believed_right=believed_right,
        rule_names=RULE_NAMES,
        percent=_percent,
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _data_url(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _weakest_joined(resolution: Resolution) -> list[dict[str, Any]]:
    pairs = np.flatnonzero(resolution.together)
    order = np.argsort(resolution.decision[pairs], kind="stable")
    shown = samples(resolution, pairs[order][:_TO_CHECK].tolist(), _TO_CHECK)
    return sorted(shown, key=_probability)


def _strongest_apart(resolution: Resolution) -> list[dict[str, Any]]:
    pairs = np.flatnonzero(~resolution.together)
    order = np.argsort(-resolution.decision[pairs], kind="stable")
    shown = samples(resolution, pairs[order][:_TO_CHECK].tolist(), _TO_CHECK)
    return sorted(shown, key=_probability, reverse=True)


def _probability(sample: dict[str, Any]) -> float:
    """What is shown of a pair orders the pairs; which are shown was decided with guards and all."""
    return float(sample["probability"])


def _largest(resolution: Resolution) -> list[dict[str, Any]]:
    ranked = sorted(entity_ids(resolution), key=lambda item: (-len(item[1]), item[0]))
    shown = []
    for entity, rows in ranked[:_LARGEST]:
        if len(rows) < 2:
            break
        item: dict[str, Any] = {"id": entity, "rows": len(rows), "name": "", "address": ""}
        item["spellings"] = len({resolution.profiles.profile_of_row[row] for row in rows})
        for role in ("name", "address"):
            columns = [c for c in resolution.roles.columns.get(role, "").split("\t") if c]
            parts = [resolution.table.column(column) for column in columns]
            cells = [repaired(" ".join(part[row] for part in parts)) for row in rows]
            item[role] = agreed_value(cells, role)[:120] if columns else ""
        shown.append(item)
    return shown
