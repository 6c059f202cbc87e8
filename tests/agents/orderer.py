"""Orders something that is delivered from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path

from onbelay_agent import Context, OperationFailed, agent


@agent
async def orderer(ctx: Context, ledger: str = "", gate: str = "", expires: float = 0.0) -> str:
    """Leaves id and token in `ledger`; with `gate`, looks at the outcome only once that file is
    there."""
    order = await ctx.operation("delivery", schema=int, expires=expires or None)
    if ledger:
        await ctx.step("send", _send, ledger, f"{order.id} {order.token}\n")
    if gate:
        await ctx.step("busy", _busy, gate)
    try:
        return f"got {await order}"
    except OperationFailed as failure:
        return f"failed: {failure}"


async def _send(ledger: str, line: str) -> None:
    with Path(ledger).open("a") as lines:  # noqa: ASYNC230 - one short line
        lines.write(line)


async def _busy(gate: str) -> None:
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - others open it
        await asyncio.sleep(0.01)
