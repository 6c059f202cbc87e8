"""Greets."""

from __future__ import annotations

from onbelay_agent import Context, agent


@agent
async def hello(ctx: Context, name: str = "you") -> str:
    return f"Hello {name}"
