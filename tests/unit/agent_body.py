"""Pieces of agents under test: a body is run as an agent that is crashed everywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel

from onbelay_agent import Context, agent
from onbelay_agent.testing import Result, TestRun

Body = Callable[[Context], Awaitable[Any]]


def outcome_of(body: Body, **world: Any) -> Result:
    """What comes of it; `world` is what TestRun takes."""

    @agent
    async def tried(ctx: Context) -> Any:
        return await body(ctx)

    return TestRun(tried, **world).crash_everywhere()


def output_of(body: Body, **world: Any) -> Any:
    """Its output, where it does not fail."""
    result = outcome_of(body, **world)
    assert result.error is None, result.error
    return result.output


class Size(BaseModel):
    """A value of more than one part."""

    width: int
    height: int


async def doubled(number: int) -> int:
    """A step's function."""
    return number * 2
