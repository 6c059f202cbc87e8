"""What the service tells about this blueprint without loading it."""

from __future__ import annotations

from typing import Any, Final

BLUEPRINT: Final[dict[str, Any]] = {
    "name": "data-cleanup",
    "title": "Clean up a messy table",
    "description": (
        "Finds which rows of a CSV table are the same entity (a site, a company, a person), asks a "
        "person to approve the rules with the evidence for each, applies them, and leaves the "
        "cleaned table, the entity of every row, a report and the lineage."
    ),
    # A person looks at rules when they have time: days, not an hour.
    "limits": {"approval_seconds": 7 * 86_400},
    "target": "onbelay_server.blueprints.data_cleanup:data_cleanup",
    "output_artifacts": [
        {
            "name": "cleaned.csv",
            "description": "one row an entity, with the best value of each column",
        },
        {
            "name": "entities.csv",
            "description": "for every input row the entity it belongs to",
        },
        {
            "name": "report.html",
            "description": "profile, rules and their effect, quality: open it in a browser",
        },
        {
            "name": "lineage.json",
            "description": "from every output row to its input rows, for programs",
        },
        {"name": "lineage.svg", "description": "the same as a picture"},
    ],
    "input_schema": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "table": {
                "type": "string",
                "default": "input.csv",
                "description": "Name of the input artifact that holds the CSV table.",
            },
            "columns": {
                "type": ["object", "null"],
                "additionalProperties": {"type": "string"},
                "propertyNames": {
                    "enum": [
                        "id", "name", "address", "zip", "city", "phone", "email", "source",
                    ]
                },
                "default": None,
                "description": "Role to column name, where detection should be overruled.",
            },
            "min_probability": {
                "type": "number",
                "minimum": 0.05,
                "maximum": 0.999,
                "default": 0.9,
                "description": "From which probability a pair of rows is joined; lower joins more.",
            },
            "rules_off": {
                "type": ["array", "null"],
                "items": {
                    "enum": [
                        "same-place-same-name", "same-place-same-contact",
                        "same-place-related-name", "near-place", "other-place-own-contact",
                        "place-unknown",
                    ]
                },
                "default": None,
                "description": "Rules that are not to be applied.",
            },
        },
    },
    # What the demo runs; the paths are in this folder.
    "example": {
        "input": {},
        "artifacts": {"input.csv": "examples/chicago-early-childhood.csv"},
    },
}  # fmt: skip
