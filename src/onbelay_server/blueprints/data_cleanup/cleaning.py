"""The resolved table as files: the cleaned table, the entity table, the lineage."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import polars as pl

from onbelay_server.blueprints.data_cleanup.address import parsed_address
from onbelay_server.blueprints.data_cleanup.resolution import Resolution
from onbelay_server.blueprints.data_cleanup.text import folded, name_words, phone_digits, repaired
from onbelay_server.blueprints.data_cleanup.text import zip_code as zip_of


def entity_ids(resolution: Resolution) -> list[tuple[str, list[int]]]:
    """Each entity's id (`e` and a number of even width, by first row) and its rows (0-based)."""
    entities = resolution.entities()
    width = max(4, len(str(len(entities))))
    return [(f"e{number:0{width}}", rows) for number, rows in enumerate(entities, 1)]


def row_ids(resolution: Resolution) -> list[str]:
    """The input's own id of each row, or its number from 1 where the table has no id column."""
    column = resolution.roles.columns.get("id", "")
    if column:
        return resolution.table.column(column)
    return [str(number) for number in range(1, len(resolution.table.rows) + 1)]


def entities_csv(resolution: Resolution) -> str:
    """`Id,cluster_id`, one line per input row, in input order."""
    ids = row_ids(resolution)
    cluster = [""] * len(ids)
    for entity, rows in entity_ids(resolution):
        for row in rows:
            cluster[row] = entity
    return pl.DataFrame({"Id": ids, "cluster_id": cluster}).write_csv()


def cleaned_csv(resolution: Resolution) -> str:
    """One line per entity: its id, how many rows it is made of, and for every input column (but
    the id) the value most of these rows agree on, repaired. Lineage says which rows they are."""
    entities = entity_ids(resolution)
    columns: dict[str, list[Any]] = {
        "cluster_id": [entity for entity, _ in entities],
        "input_rows": [len(rows) for _, rows in entities],
    }
    id_column = resolution.roles.columns.get("id", "")
    for name in resolution.table.header:
        if name == id_column:
            continue
        cells = [repaired(cell) for cell in resolution.table.column(name)]
        role = resolution.roles.of(name)
        unique = name
        while unique in columns:
            unique = f"input_{unique}"
        columns[unique] = [agreed_value([cells[row] for row in rows], role) for _, rows in entities]
    return pl.DataFrame(columns).write_csv()


def agreed_value(cells: list[str], role: str = "") -> str:
    """The value that stands for several: the commonest meaning, in its fullest spelling.

    An empty cell never outvotes a filled one. For a source column: all values, each once.
    """
    filled = [cell for cell in cells if folded(cell)]
    if not filled:
        return ""
    if role == "source":
        return "; ".join(sorted(set(filled)))
    meanings = Counter(_meaning(cell, role) for cell in filled)
    most = max(meanings.values())
    spellings = Counter(cell for cell in filled if meanings[_meaning(cell, role)] == most)
    best = max(spellings, key=lambda s: (spellings[s], not s.isupper(), len(s), s))
    return _tidy(best, role)


def _meaning(cell: str, role: str) -> str:
    if role == "name":
        return " ".join(sorted(set(name_words(cell))))
    if role == "address":
        address = parsed_address(cell)
        return f"{address.low} {address.street}" if address and address.street else cell.casefold()
    if role == "phone":
        return phone_digits(cell)[-7:] or cell
    if role == "zip":
        return zip_of(cell) or cell
    return cell.casefold()


def _tidy(cell: str, role: str) -> str:
    if role == "phone":
        digits = phone_digits(cell)
        if len(digits) == 10:
            return f"{digits[:3]}-{digits[3:6]}-{digits[6:]}"
        return f"{digits[:3]}-{digits[3:]}" if len(digits) == 7 else cell
    if role == "zip":
        return zip_of(cell) or cell
    if role in ("name", "address"):
        return re.sub(r"\s*,\s*$", "", cell)
    return cell


def lineage_json(resolution: Resolution) -> str:
    """Every output row's input rows (numbers from 1, with their ids) and every input row's output
    row."""
    ids = row_ids(resolution)
    entities = entity_ids(resolution)
    inputs = {str(row + 1): entity for entity, rows in entities for row in rows}
    content = {
        "input_sha256": resolution.table_sha256,
        "outputs": {
            entity: {"rows": [row + 1 for row in rows], "ids": [ids[row] for row in rows]}
            for entity, rows in entities
        },
        "inputs": {row: inputs[row] for row in sorted(inputs, key=int)},
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
