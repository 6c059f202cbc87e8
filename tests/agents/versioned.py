"""Yesterday's code and today's, under one name: which is run decides what a run's log fits."""

from __future__ import annotations

from onbelay_agent import Context, agent


async def _echo(value: int) -> int:
    return value


@agent(name="versioned")
async def yesterday(ctx: Context) -> list[int]:
    first = await ctx.step("first", _echo, 1)
    await ctx.approve("go on?")
    return [0, first]


@agent(name="versioned")
async def today(ctx: Context) -> list[int]:
    """Checks first, in runs that had not got there yesterday."""
    first = await ctx.step("first", _echo, 1)
    version = ctx.version("check", 1)
    if version >= 1:
        await ctx.step("check", _echo, 2)
    await ctx.approve("go on?")
    return [version, first]


@agent(name="versioned")
async def careless(ctx: Context) -> list[int]:
    """Checks first, and does not ask for a version: yesterday's runs do not fit."""
    first = await ctx.step("first", _echo, 1)
    await ctx.step("check", _echo, 2)
    await ctx.approve("go on?")
    return [0, first]
