from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from onbelay_agent import (
    AgentNotLoaded,
    Context,
    InvalidDefinition,
    InvalidInput,
    Limits,
    agent,
    tool,
)
from onbelay_agent.definition import load


class Order(BaseModel):
    item: str
    count: int = Field(1, ge=1, le=9)


@tool(risk="write", idempotent=True)
async def book(item: str, idempotency_key: str = "") -> str:
    """Books it."""
    return f"{item} {idempotency_key}"


@agent(tools=[book, "mail"], limits=Limits(grace_seconds=3))
async def order_things(ctx: Context, item: str, count: int = 2) -> list[str]:
    """Orders things."""
    return [item] * count


@agent
async def whole(ctx: Context, order: Order) -> Order:
    return order


def test_definition_is_taken_from_the_function() -> None:
    described = order_things.describe()
    assert described["name"] == "order-things"
    assert described["description"] == "Orders things."
    assert described["tools"] == ["book", "mail"]
    assert described["risk"] == "write"
    assert described["runs_in"] == "process"
    assert described["limits"]["grace_seconds"] == 3
    assert described["input_schema"]["required"] == ["item"]
    assert described["input_schema"]["additionalProperties"] is False
    assert described["output_schema"] == {"items": {"type": "string"}, "type": "array"}
    assert len(described["fingerprint"]) == 64
    assert json.loads(json.dumps(described)) == described


def test_input_is_bound_by_name() -> None:
    assert order_things.bind('{"item": "tea"}') == {"item": "tea", "count": 2}
    assert whole.bind('{"item": "tea", "count": 3}') == {"order": Order(item="tea", count=3)}
    assert whole.input_schema["properties"]["count"]["maximum"] == 9


@pytest.mark.parametrize(
    ("input_json", "field"),
    [
        ("{}", "item"),
        ('{"item": 4}', "item"),
        ('{"item": "a", "count": "many"}', "count"),
        ('{"item": "a", "other": 1}', "other"),
        ("[]", ""),
        ("{", ""),
    ],
)
def test_input_that_does_not_fit_names_the_field(input_json: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        order_things.bind(input_json)
    assert caught.value.field == field


def test_parameters_may_have_the_names_of_model_attributes() -> None:
    @agent
    async def copies(ctx: Context, copy: int, json: str, schema: bool = False) -> None: ...

    assert copies.bind('{"copy": 1, "json": "a"}') == {"copy": 1, "json": "a", "schema": False}


def test_a_plain_function_runs_in_a_child() -> None:
    def plain(ctx: Context) -> None: ...

    assert agent(plain).runs_in == "child"
    with pytest.raises(InvalidDefinition, match="child"):
        agent(child=False)(plain)


def test_what_cannot_be_an_agent_is_refused() -> None:
    async def no_context() -> None: ...

    async def starred(ctx: Context, *items: int) -> None: ...

    for function in (no_context, starred):
        with pytest.raises(InvalidDefinition):
            agent(function)
    with pytest.raises(InvalidDefinition):
        agent(name="Not A Name")(starred)


def test_agents_are_loaded_from_modules_and_files(tmp_path: Path) -> None:
    file = tmp_path / "hello_file.py"
    file.write_text(
        "from onbelay_agent import agent, Context\n"
        "@agent\n"
        "async def hello(ctx: Context, name: str) -> str:\n"
        "    return name\n"
        "other = 3\n"
    )
    loaded = load(f"{file}:hello")
    assert loaded.name == "hello"
    assert load(f"{file}:hello") is loaded
    for target in (
        "hello",
        "no.such.module:hello",
        f"{file}:other",
        f"{file}:absent",
        f"{tmp_path}/absent.py:hello",
    ):
        with pytest.raises(AgentNotLoaded):
            load(target)


async def test_a_tool_is_called_with_checked_arguments() -> None:
    assert book.input_schema["required"] == ["item"]
    assert "idempotency_key" not in book.input_schema["properties"]
    assert await book.invoke('{"item": "tea"}', "k1") == '"tea k1"'
    with pytest.raises(InvalidInput):
        await book.invoke('{"item": 3}')
