"""Counts in steps; each step that really ran leaves a line in the file it is given."""

from __future__ import annotations

import asyncio
from pathlib import Path

from onbelay_agent import Context, agent


@agent
async def counter(ctx: Context, steps: int = 3, ledger: str = "", gate: str = "") -> int:
    """Each step adds its number. With `gate`, the last step waits until that file exists."""
    total = 0
    for number in range(1, steps + 1):
        held = gate if number == steps else ""
        total += await ctx.step(f"add-{number}", _add, number, ledger, held)
    return total


async def _add(number: int, ledger: str, gate: str) -> int:
    if ledger:
        with Path(ledger).open("a") as lines:  # noqa: ASYNC230 - one short line
            lines.write(f"{number}\n")
    while gate and not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - others open it
        await asyncio.sleep(0.01)
    return number
