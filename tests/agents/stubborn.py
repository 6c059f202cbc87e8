"""Swallows every exception, also those that tell it to end; in a child, which can be killed."""

from __future__ import annotations

from onbelay_agent import Context, Limits, agent


@agent(child=True, limits=Limits(grace_seconds=0.2, kill_seconds=0.5))
async def stubborn(ctx: Context) -> str:
    while True:
        try:
            await ctx.sleep(3600)
        except BaseException:  # noqa: BLE001 - the point of this agent
            continue
