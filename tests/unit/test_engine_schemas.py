"""Schemas that an agent asks with: one that is none fails the call, before anybody is asked."""

from __future__ import annotations

import json

import pytest

from onbelay_agent.protocol import Recorded
from tests.engine_house import begin, engine_house, intent

REFUSED = [
    {"type": 5},
    {"$ref": "http://169.254.169.254/x"},
    {"$ref": "#/nope"},
    {"enum": 5},
    {"minLength": "a"},
    {"type": "string", "pattern": "["},
    True,
]


@pytest.mark.parametrize("schema", REFUSED, ids=json.dumps)
@pytest.mark.parametrize("kind", ["QUESTION", "OPERATION"])
async def test_a_schema_that_is_none_fails_the_call(kind: str, schema: object) -> None:
    async with engine_house() as house:
        run, copy = await house.begun()
        request = {"question": "how many?", "name": "pay", "schema": schema}
        copy.say(begin(intent("c", kind, json.dumps(request))))  # type: ignore[arg-type]
        failure = (await copy.heard(Recorded)).record.failure
        assert failure is not None
        assert failure.type == "SchemaRefused"
        assert not (await house.store.waits([run.id]))[run.id]


async def test_a_schema_is_asked_with() -> None:
    async with engine_house() as house:
        run, copy = await house.begun()
        request = {"question": "how many?", "schema": {"type": "integer", "minimum": 1}}
        copy.say(begin(intent("c", "QUESTION", json.dumps(request))))
        assert json.loads((await house.pending(run.id)).answer_schema_json) == request["schema"]
