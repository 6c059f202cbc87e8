"""Starts children, and they theirs; every run leaves a line in the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from onbelay_agent import ChildRunFailed, Context, Limits, agent

LIMITS = Limits(grace_seconds=0.2, kill_seconds=0.5)


@agent(name="family", limits=LIMITS)
async def family(
    ctx: Context, children: int = 2, depth: int = 1, ledger: str = "", sleep: float = 0.0
) -> Any:
    """`depth` levels of `children` runs each; the leaves sleep durably for `sleep` seconds.

    Gives the number of runs below and including itself."""
    await ctx.step("note", note, ledger, ctx.run.id)
    if depth <= 0:
        await ctx.sleep(sleep)
        return 1
    below = {"children": children, "depth": depth - 1, "ledger": ledger, "sleep": sleep}
    started = [await ctx.start_agent("family", below, returns=int) for _ in range(children)]
    return 1 + sum(await asyncio.gather(*started))


@agent(name="guardian", limits=LIMITS)
async def guardian(ctx: Context, child: str, input: dict[str, Any] | None = None) -> Any:
    """Runs one child, whatever it is, and says how it ended."""
    try:
        return {"output": await ctx.run_agent(child, input)}
    except ChildRunFailed as failed:
        return {"state": failed.state, "reason": failed.reason, "message": failed.message}


async def note(ledger: str, line: str) -> None:
    if ledger:
        with Path(ledger).open("a") as lines:  # noqa: ASYNC230 - one short line
            lines.write(f"{line}\n")
