"""What the table looks like before anything is done to it: a profile of every column."""

from __future__ import annotations

from typing import Any

import polars as pl

from onbelay_server.blueprints.data_cleanup.roles import Roles
from onbelay_server.blueprints.data_cleanup.table import Table
from onbelay_server.blueprints.data_cleanup.text import repaired

_TOP_VALUES = 3
_SHOWN_CHARACTERS = 40


def overview(table: Table, roles: Roles) -> dict[str, Any]:
    """Rows, exact copies, notes, and for each column: role, share filled, distinct values, the
    commonest ones. JSON values."""
    columns = []
    for at, name in enumerate(table.header):
        values = pl.Series(name, [row[at].strip() for row in table.rows], dtype=pl.String)
        filled = values.filter(values != "")
        counts = filled.value_counts(name="count").sort(["count", name], descending=[True, False])
        columns.append(
            {
                "name": name[:80],
                "role": roles.of(name),
                "filled": round(len(filled) / len(values), 4),
                "distinct": int(filled.n_unique()),
                "common": [
                    {"value": repaired(str(row[0]))[:_SHOWN_CHARACTERS], "rows": int(row[1])}
                    for row in counts.head(_TOP_VALUES).iter_rows()
                ],
            }
        )
    identity = [
        at for at, name in enumerate(table.header) if roles.of(name) not in ("id", "source")
    ]
    seen = {tuple(row[at].strip() for at in identity) for row in table.rows}
    return {
        "rows": len(table.rows),
        "copied_rows": len(table.rows) - len(seen),
        "columns": columns,
        "notes": list(table.notes),
    }
