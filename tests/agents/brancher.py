"""Grows a tree of runs whose leaves sleep, greet or fail."""

from __future__ import annotations

from typing import Any

from onbelay_agent import ChildRunFailed, Context, agent


@agent
async def brancher(
    ctx: Context,
    depth: int = 1,
    width: int = 2,
    leaf: str = "hello",
    values: dict[str, Any] | None = None,
) -> list[str]:
    """The outputs of its leaves, from the first to the last; of one that failed, why."""
    name, given = leaf, values or {}
    if depth > 1:
        given = {"depth": depth - 1, "width": width, "leaf": leaf, "values": given}
        name = "brancher"
    children = [await ctx.start_agent(name, given) for _ in range(width)]
    outputs: list[str] = []
    for child in children:
        try:
            found = await child
        except ChildRunFailed as failure:
            found = f"failed: {failure}"
        outputs += found if isinstance(found, list) else [str(found)]
    return outputs
