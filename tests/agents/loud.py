"""Says much at once, after being silent for as long as it is told."""

from __future__ import annotations

import asyncio
import time

from onbelay_agent import Context, agent


@agent
async def loud(ctx: Context, pieces: int = 1, size: int = 10, silent: float = 0.0) -> int:
    """Shows `pieces` texts of `size` characters, each written before the next."""
    if silent:
        # Blocks its loop: nothing is heard of it.
        end = time.monotonic() + silent
        while time.monotonic() < end:
            time.sleep(0.01)  # noqa: ASYNC251 - the point of this agent
    for _ in range(pieces):
        ctx.emit("x" * size)
        await ctx.step("said", _said)
    return pieces


async def _said() -> None:
    await asyncio.sleep(0)
