"""Takes its process with it, as often as the ledger has room for."""

from __future__ import annotations

import os
from pathlib import Path

from onbelay_agent import Context, agent


@agent(child=True)
async def crasher(ctx: Context, ledger: str, times: int = 1) -> int:
    return await ctx.step("crash", _crash, ledger, times)


def _crash(ledger: str, times: int) -> int:
    with Path(ledger).open("a") as lines:
        lines.write("x\n")
    crashes = len(Path(ledger).read_text().splitlines())
    if crashes <= times:
        os._exit(9)
    return crashes
