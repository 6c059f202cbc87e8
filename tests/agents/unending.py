"""In the server's own process, in ways of its own: swallows what ends it, or blocks a thread."""

from __future__ import annotations

import asyncio
import time

from onbelay_agent import Context, Limits, agent


async def swallow() -> None:
    while True:
        try:
            await asyncio.sleep(0.01)
        except BaseException:  # noqa: BLE001 - the point of this agent
            continue


async def wait_for_swallower() -> None:
    await asyncio.create_task(swallow())


@agent(limits=Limits(grace_seconds=0.1, kill_seconds=2))
async def unending(ctx: Context, way: str) -> None:
    match way:
        case "step":
            await ctx.step("swallow", swallow)
        case "task of a step":
            await ctx.step("swallow", wait_for_swallower)
        case "thread":
            await ctx.step("sleep", time.sleep, 3600)
    while True:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.sleep(3600))
        except BaseException:  # noqa: BLE001 - the point of this agent
            continue
