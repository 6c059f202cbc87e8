"""The agents that the bench has its server run: each does one thing at a known pace."""

from __future__ import annotations

import asyncio
import time

from onbelay_agent import Context, agent

TEXT_BYTES = 120
"""Length of a text, so that an encoded event has about 200 bytes."""


def stamped(index: int) -> str:
    """The text of event `index`: its number and the moment it was emitted, padded."""
    return f"{index} {time.monotonic_ns()} ".ljust(TEXT_BYTES, ".")


@agent
async def bench_emitter(
    ctx: Context, events: int, burst: int, start: float, interval: float
) -> int:
    """Emit `events` texts from `start` (monotonic seconds) on, `burst` at a time, with `interval`
    seconds between bursts or as fast as possible."""

    async def emit() -> int:
        await asyncio.sleep(start - time.monotonic())
        due = start
        for first in range(0, events, burst):
            for index in range(first, min(first + burst, events)):
                ctx.emit(stamped(index))
            due += interval
            await asyncio.sleep(due - time.monotonic() if interval else 0)
        return events

    return await ctx.step("emit", emit)


@agent
async def bench_prompt(ctx: Context) -> None:
    """Emit one text and end."""
    ctx.emit(stamped(0))


@agent
async def bench_stepper(ctx: Context, steps: int, start: float) -> int:
    """Take `steps` recorded steps, one after the other, once everybody has begun."""

    async def wait() -> None:
        await asyncio.sleep(start - time.monotonic())

    async def work(number: int) -> int:
        return number

    await ctx.step("barrier", wait)
    total = 0
    for number in range(steps):
        total += await ctx.step("work", work, number)
    return total


@agent
async def bench_waiter(ctx: Context) -> str:
    """Ask a person who never answers."""
    return await ctx.ask("bench?", str)


@agent
async def bench_holder(ctx: Context) -> None:
    """Keep a worker busy for an hour without doing anything."""

    async def hold() -> None:
        await asyncio.sleep(3600)

    await ctx.step("hold", hold)
