"""Calls a tool of the risk it is told, and the tools it may call."""

from __future__ import annotations

import asyncio
from pathlib import Path

from onbelay_agent import Context, agent, tool


async def _work(ledger: str, gate: str) -> str:
    if ledger:
        with Path(ledger).open("a") as lines:  # noqa: ASYNC230 - one short line
            lines.write("called\n")
    while gate and not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - others open it
        await asyncio.sleep(0.01)
    return "done"


@tool(risk="read")
async def look(ledger: str = "", gate: str = "") -> str:
    """Reads."""
    return await _work(ledger, gate)


@tool(risk="write")
async def write(ledger: str = "", gate: str = "") -> str:
    """Writes."""
    return await _work(ledger, gate)


@tool(risk="write", idempotent=True)
async def upsert(idempotency_key: str, ledger: str = "", gate: str = "") -> str:
    """Writes, at most once a key."""
    assert len(idempotency_key) == 64
    return await _work(ledger, gate)


@agent(tools=[look, write, upsert], risk="write")
async def toolsmith(ctx: Context, tool: str = "look", ledger: str = "", gate: str = "") -> str:
    answer: str = await ctx.tool(tool, {"ledger": ledger, "gate": gate})
    return answer
