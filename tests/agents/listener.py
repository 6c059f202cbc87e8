"""Does as it is told while it runs: every message is a line of its output."""

from __future__ import annotations

import asyncio
from pathlib import Path

from onbelay_agent import Context, agent


@agent(name="listener", accepts_messages=True)
async def listener(
    ctx: Context, ledger: str = "", last: str = "end", patience: float | None = None
) -> list[str]:
    """Takes messages until one says `last`; each is noted once in the ledger. It asks anew whenever
    none has come for `patience` seconds."""
    heard: list[str] = []
    while last not in heard:
        try:
            async with asyncio.timeout(patience):
                messages = await ctx.messages()
        except TimeoutError:
            continue
        for message in messages:
            await ctx.step("note", note, ledger, message.text)
            heard.append(message.text)
            ctx.emit(f"{message.sent_by}: {message.text}")
    return heard


async def note(ledger: str, text: str) -> None:
    if ledger:
        with Path(ledger).open("a") as lines:  # noqa: ASYNC230 - one short line
            lines.write(f"{text}\n")
