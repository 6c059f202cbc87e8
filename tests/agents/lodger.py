"""An agent that needs a process of its own and starts another that does."""

from __future__ import annotations

from onbelay_agent import Context, agent


@agent(child=True)
async def lodger(ctx: Context, guests: int = 1) -> int:
    """How many processes the run and those below it took."""
    if not guests:
        return 1
    guest = await ctx.start_agent("lodger", {"guests": guests - 1}, returns=int)
    await ctx.step("work", lambda: None)
    return 1 + await guest
