"""The authors' guide shows code that runs, and every member of the context once."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import onbelay_agent.testing as testing
from onbelay_agent import Context, agent, tool

GUIDE = Path(__file__).parents[2] / "docs" / "authors-guide.md"


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {
        "agent": agent,
        "Context": Context,
        "asyncio": asyncio,
        "tool": tool,
        "load_subscribers": lambda topic: ["a", "b", "c"],
        "write_text": lambda topic: f"About {topic}",
        "check_stock": lambda item: None,
        "buy": lambda item: f"bought {item}",
    }
    for block in blocks[:-1]:
        exec(compile(block, str(GUIDE), "exec"), names)
    names["test"] = blocks[-1]
    return names


def test_the_five_line_agent(shown: dict[str, Any]) -> None:
    assert testing.TestRun(shown["hello"]).execute({"name": "Ada"}).output == "Hello Ada"


def test_the_agent_with_a_version(shown: dict[str, Any]) -> None:
    assert testing.TestRun(shown["order"]).crash_everywhere({"item": "x"}).output == "bought x"


def test_the_test_of_the_guide(shown: dict[str, Any]) -> None:
    names = dict(shown)

    @tool(risk="external_send", idempotent=True)
    async def mail(to: str, text: str, idempotency_key: str) -> str:
        return f"{to}: {text}"

    names["mail"] = mail
    exec(compile(shown["test"], str(GUIDE), "exec"), names)


FIRST_CELLS = re.findall(r"^\| (`.*?) \|", GUIDE.read_text(), re.MULTILINE)
CALLS = [call for cell in FIRST_CELLS for call in re.findall(r"`(?:await )?(.+?)`", cell)]


def test_each_member_of_the_context_is_in_the_table_once() -> None:
    @agent
    async def members(ctx: Context) -> list[str]:
        return [name for name in dir(ctx) if not name.startswith("_")]

    found = testing.TestRun(members).execute({}).output
    told = [name for call in CALLS if (name := re.split(r"\W", call)[0]) in found]
    # artifacts.read and artifacts.save are two calls of one member
    assert sorted(told) == sorted([*found, "artifacts"])


@pytest.mark.parametrize("call", [call for call in CALLS if re.fullmatch(r"\w+\([^{[]*\)", call)])
def test_the_table_names_parameters_as_the_code_does(call: str) -> None:
    name, _, rest = call.rstrip(")").partition("(")
    method = getattr(Context, name, None)
    if method is None:
        return  # what a call gives
    known = inspect.signature(method).parameters
    assert {word.strip(" *").partition("=")[0] for word in rest.split(",") if word} <= {*known}
