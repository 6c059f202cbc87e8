"""Listens until it is told to end."""

from __future__ import annotations

from typing import Any

from onbelay_agent import Context, agent


@agent(accepts_messages=True)
async def listener(ctx: Context) -> list[Any]:
    """What it was told, text or data, in order; the word `end` is the last."""
    heard: list[Any] = []
    while "end" not in heard:
        heard += [message.text or message.data for message in await ctx.messages()]
    return heard
