"""An agent whose process does not see that its server is gone, and has started another."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from onbelay_agent import Context, agent


@agent(child=True)
async def brood(ctx: Context, ledger: str) -> None:
    """Notes its process ids, then keeps the interpreter to itself."""
    await ctx.step("fork", _fork, ledger)
    re.match(r"(a+)+$", "a" * 60 + "b")


def _fork(ledger: str) -> None:
    young = os.fork()
    if not young:
        time.sleep(600)
        os._exit(0)
    Path(ledger).write_text(f"{os.getpid()} {young}\n")
