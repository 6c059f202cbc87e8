"""Does as it is told while it runs: every message is a line of its output."""

from __future__ import annotations

from pathlib import Path

from onbelay_agent import Context, agent


@agent(name="listener", accepts_messages=True)
async def listener(ctx: Context, ledger: str = "", last: str = "end") -> list[str]:
    """Takes messages until one says `last`; each is noted once in the ledger."""
    heard: list[str] = []
    while last not in heard:
        for message in await ctx.messages():
            await ctx.step("note", note, ledger, message.text)
            heard.append(message.text)
            ctx.emit(f"{message.sent_by}: {message.text}")
    return heard


async def note(ledger: str, text: str) -> None:
    if ledger:
        with Path(ledger).open("a") as lines:  # noqa: ASYNC230 - one short line
            lines.write(f"{text}\n")
