"""Values checked while the service goes on serving."""

from __future__ import annotations

import asyncio
import json

import pytest

from onbelay_server.app.schema import check_value, departures
from onbelay_server.domain.error import InvalidArgument

SMALL = '{"properties":{"n":{"type":"integer"}}}'
LARGE = json.dumps({"properties": {"n": {"type": "integer"}}, "description": "x" * 20_000})
LEVELS = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(12)}
COSTLY = json.dumps({"$defs": {**LEVELS, "d12": {}}, "$ref": "#/$defs/d0", **json.loads(SMALL)})
"""Small, and thousands of keywords to look at for any value."""


@pytest.mark.parametrize(
    ("schema", "text", "beside"),
    [
        ("", "x" * 20_000, False),
        ("{}", "x" * 20_000, False),
        (SMALL, '{"n":"1"}', False),
        (LARGE, '{"n":"1"}', True),
        (COSTLY, '{"n":"1"}', True),
        (SMALL, json.dumps({"n": "1", "x": "y" * 20_000}), True),
    ],
)
async def test_only_what_is_quick_is_checked_on_the_loop(
    schema: str, text: str, beside: bool
) -> None:
    checking = asyncio.ensure_future(departures(schema, text, "v"))
    await asyncio.sleep(0)
    assert checking.done() is not beside
    found = [one.field for one in await checking]
    assert found == ([] if schema in ("", "{}") else ["v/n"])


async def test_a_value_that_departs_is_refused_with_every_place() -> None:
    schema = '{"properties":{"a":{"type":"string"},"b":{"type":"string"}}}'
    await check_value(schema, '{"a":"","b":""}', "input", reason="INPUT_MISMATCH")
    with pytest.raises(InvalidArgument) as refused:
        await check_value(schema, '{"a":1,"b":2}', "input", reason="INPUT_MISMATCH")
    assert refused.value.reason == "INPUT_MISMATCH"
    assert [one.field for one in refused.value.fields] == ["input/a", "input/b"]
    assert refused.value.text == (
        "input/a: 1 is not of type 'string'; input/b: 2 is not of type 'string'"
    )
