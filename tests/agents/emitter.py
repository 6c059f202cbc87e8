"""Shows text to watchers, as often as it is told."""

from __future__ import annotations

from onbelay_agent import Context, agent


@agent
async def emitter(ctx: Context, count: int = 10, every: int = 10) -> int:
    """Emits `count` texts; after each `every` of them a step lets what was said be written."""
    for number in range(1, count + 1):
        ctx.emit(f"line {number}")
        if number % every == 0:
            ctx.progress(number, count)
            await ctx.step("pause", _nothing)
    return count


async def _nothing() -> None:
    return None
