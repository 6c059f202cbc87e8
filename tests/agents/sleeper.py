"""Sleeps: durably, or in a step that only its cancellation ends."""

from __future__ import annotations

import asyncio

from onbelay_agent import Context, Limits, agent


@agent(limits=Limits(grace_seconds=0.2, kill_seconds=0.5))
async def sleeper(ctx: Context, seconds: float = 3600.0, in_step: bool = False) -> str:
    if in_step:
        await ctx.step("nap", _nap, seconds)
    else:
        await ctx.sleep(seconds)
    return "rested"


async def _nap(seconds: float) -> None:
    await asyncio.sleep(seconds)
