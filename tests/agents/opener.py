"""Hands an operation to whoever reads the file it writes, and waits for its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onbelay_agent import Context, OperationFailed, agent


@agent(name="operator")
async def operator(
    ctx: Context, handed: str = "", expires: float | None = None, sleep_first: float = 0.0
) -> Any:
    """Writes `{"id", "token"}` to the file `handed`; sleeps before it waits when told so."""
    job = await ctx.operation("job", int, expires=expires)
    await ctx.step("hand over", hand_over, handed, job.id, job.token)
    if sleep_first:
        await ctx.sleep(sleep_first)
    try:
        return {"result": await job, "again": await job.result()}
    except OperationFailed as failed:
        return {"failed": failed.message, "reason": failed.reason, "expired": failed.expired}


async def hand_over(handed: str, operation_id: str, token: str) -> None:
    if handed:
        text = json.dumps({"id": operation_id, "token": token})
        Path(handed).write_text(text)  # noqa: ASYNC240 - one short line
