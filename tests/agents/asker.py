"""Asks a person for a yes, then for a word."""

from __future__ import annotations

from onbelay_agent import Context, Rejected, agent


@agent
async def asker(ctx: Context, ledger: str = "") -> str:
    await ctx.step("prepare", _prepare, ledger)
    try:
        said = await ctx.approve("Go on?", "There is no way back.", evidence={"pairs": 3})
    except Rejected as no:
        return f"rejected: {no}"
    word = await ctx.ask("Which word?", str)
    return f"{said.by}: {word}"


async def _prepare(ledger: str) -> None:
    if ledger:
        with open(ledger, "a") as lines:  # noqa: ASYNC230 - one short line
            lines.write("prepared\n")
