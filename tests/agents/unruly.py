# tests/agents/unruly.py
"""Agents that are hard to stop. Each notes what it does in the file it is given."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from onbelay_agent import Context, Limits, agent

LIMITS = Limits(grace_seconds=0.3, kill_seconds=0.5)


def _note(ledger: str, line: str) -> None:
    with Path(ledger).open("a") as lines:
        lines.write(f"{time.time():.3f} {line}\n")


async def _effect(ledger: str, line: str) -> None:
    _note(ledger, line)


async def _long(ledger: str) -> None:
    _note(ledger, "begun")
    await asyncio.sleep(600)
    _note(ledger, "slept")


@agent(limits=LIMITS)
async def long_await(ctx: Context, ledger: str) -> None:
    """Ten minutes in one await, then an effect."""
    await ctx.step("nap", _long, ledger)
    await ctx.step("after", _effect, ledger, "after")


@agent(limits=LIMITS)
async def catcher(ctx: Context, ledger: str) -> None:
    """Catches everything, also through groups and gather, and goes on."""
    number = 0
    while True:
        number += 1
        try:
            if number % 3 == 0:
                async with asyncio.TaskGroup() as group:
                    group.create_task(ctx.step(f"in-group-{number}", _effect, ledger, "effect"))
            elif number % 3 == 1:
                await asyncio.gather(
                    ctx.step(f"gathered-{number}", _effect, ledger, "effect"),
                    return_exceptions=True,
                )
            else:
                await ctx.step(f"alone-{number}", _effect, ledger, "effect")
            await ctx.step(f"rest-{number}", asyncio.sleep, 0.02)
        except BaseException:  # noqa: BLE001 - the point of this agent
            continue


@agent(child=True, limits=LIMITS)
async def computing_child(ctx: Context, ledger: str) -> None:
    """Computes on its own loop for ever."""
    await ctx.step("begin", _effect, ledger, "begun")
    while True:
        sum(range(10_000))


@agent(child=True, limits=LIMITS)
async def sleeping_child(ctx: Context, ledger: str) -> None:
    """Blocks its own loop, again and again, and a thread besides."""
    sleeping = asyncio.create_task(ctx.step("thread", _sleep_for_ever, ledger))
    while True:
        await ctx.step("begin", _effect, ledger, "begun")
        while not sleeping.done():
            time.sleep(0.05)  # noqa: ASYNC251 - the point of this agent


def _sleep_for_ever(ledger: str) -> None:
    while True:
        time.sleep(0.05)


@agent(limits=LIMITS)
async def blocking_thread(ctx: Context, ledger: str, gate: str) -> None:
    """A thread in process that nothing can end; behind it an effect that must not happen."""
    await ctx.step("blocked", _block, ledger, gate)
    await ctx.step("after", _effect, ledger, "after")


@agent(limits=LIMITS)
async def blocking_loop(ctx: Context, ledger: str, gate: str) -> None:
    """Blocks the agent loop of the service itself."""
    await ctx.step("begin", _effect, ledger, "begun")
    _block(ledger, gate)
    await ctx.step("after", _effect, ledger, "after")


def _block(ledger: str, gate: str) -> None:
    _note(ledger, "begun")
    while not Path(gate).exists():
        time.sleep(0.02)
    _note(ledger, "unblocked")


@agent(limits=LIMITS)
async def dynasty(ctx: Context, ledger: str, generations: int = 3) -> None:
    """Three levels of children, each at work."""
    if generations:
        heirs = [
            await ctx.start_agent("dynasty", {"ledger": ledger, "generations": generations - 1})
            for _ in range(2 if generations > 1 else 1)
        ]
        for heir in heirs:
            await heir
    else:
        await ctx.step("nap", _long, ledger)
    await ctx.step("after", _effect, ledger, "after")
