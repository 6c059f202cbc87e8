"""JSON Schemas of users: what is refused, and that checking values stays bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onbelay_server.app.schema import schema_violations, value_violations

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def of_schema(schema: Any) -> list[str]:
    return [one.description for one in schema_violations(json.dumps(schema), "s")]


def of_value(schema: Any, value: Any) -> list[str]:
    assert of_schema(schema) == []
    return [one.field for one in value_violations(json.dumps(schema), value, "v")]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": DIALECT, "type": "object"},
        {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
        {"properties": {"$ref": {"type": "string"}, "$id": True}},
        {"enum": [{"$ref": "https://x.test/"}]},
        {"pattern": "^(a+)+$"},
    ],
)
def test_good_schemas(schema: Any) -> None:
    assert of_schema(schema) == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([], "JSON object"),
        ({"type": "text"}, "/type"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "only https"),
        ({"properties": {"a": {"$schema": DIALECT}}}, "not allowed inside"),
        ({"$id": "https://x.test/"}, "not allowed inside"),
        ({"$ref": "https://x.test/s"}, "outside this schema"),
        ({"items": {"$dynamicRef": "file:///etc/passwd"}}, "outside this schema"),
        ({"$ref": "#/$defs/missing"}, "does not exist"),
        ({"pattern": "(?=a)"}, "linear time"),
        ({"patternProperties": {"(a)\\1": {}}}, "linear time"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "together"),
    ],
)
def test_refused_schemas(schema: Any, words: str) -> None:
    (found,) = of_schema(schema)
    assert words in found


def test_texts_that_are_no_schema() -> None:
    assert schema_violations("", "s") == []
    for text in ("{", "NaN", '{"a":1}' + " " * 70_000, '{"items":' * 2000 + "{}" + "}" * 2000):
        assert len(schema_violations(text, "s")) == 1


def test_values_are_judged_by_place() -> None:
    schema = {
        "type": "object",
        "properties": {"a/b": {"type": "string", "pattern": "^x"}, "n": {"minimum": 1}},
        "patternProperties": {"^t_": {"type": "integer"}},
        "additionalProperties": False,
        "required": ["n"],
    }
    assert of_value(schema, {"a/b": "x", "n": 1, "t_1": 2}) == []
    assert of_value(schema, {"a/b": "y", "n": 0, "t_1": "2"}) == ["v/a~1b", "v/n", "v/t_1"]
    assert of_value(schema, {"n": 1, "other": 1}) == ["v"]
    assert of_value(schema, {}) == ["v"]


def test_equal_items_are_those_json_schema_calls_equal() -> None:
    schema = {"uniqueItems": True}
    assert of_value(schema, [1, True, "1", None, [1], {"a": 1}]) == []
    for items in ([1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [[True], [True]]):
        assert of_value(schema, items) == ["v"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "pattern": "^(a+)+$"}, "a" * 50_000 + "!"),
        ({"$ref": "#"}, 1),
        ({"uniqueItems": True, "items": {"type": "object"}}, [*({"n": n} for n in range(9000)), 1]),
    ],
)
def test_checking_a_value_never_runs_away(schema: Any, value: Any) -> None:
    assert of_value(schema, value) != []


def test_doubling_references_are_cut_off() -> None:
    levels = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$defs": {**levels, "d40": {}}, "$ref": "#/$defs/d0"}
    assert of_schema(schema) == []
    (found,) = value_violations(json.dumps(schema), 1, "v")
    assert "too long" in found.description
