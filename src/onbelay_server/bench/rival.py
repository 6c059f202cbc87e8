"""A durable-execution library doing the same as row S10: the library DBOS, in a process of its own.

It is no dependency: it is measured only with an interpreter that has it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from onbelay_server.bench.processes import BenchFailed

PROGRAM = """
import logging, sys, threading, time
from dbos import DBOS

DBOS(config={"name": "bench", "system_database_url": "sqlite:///" + sys.argv[1]})
logging.getLogger("dbos").setLevel(logging.ERROR)

@DBOS.step()
async def work(number):
    return number

@DBOS.workflow()
async def flow(steps):
    total = 0
    for number in range(steps):
        total += await work(number)
    return total

DBOS.launch()
runs, steps = int(sys.argv[2]), int(sys.argv[3])

import asyncio

async def main():
    for handle in [await DBOS.start_workflow_async(flow, 3) for _ in range(runs)]:
        await handle.get_result()
    began = time.monotonic()
    handles = [await DBOS.start_workflow_async(flow, steps) for _ in range(runs)]
    for handle in handles:
        assert await handle.get_result() == steps * (steps - 1) // 2
    print("rate", runs * steps / (time.monotonic() - began), flush=True)

asyncio.run(main())
DBOS.destroy()
"""


def dbos_steps(python: Path, *, runs: int, steps: int) -> float:
    """Steps a second that DBOS records on SQLite. Raises BenchFailed."""
    with tempfile.TemporaryDirectory(prefix="onbelay-bench-") as folder:
        command = [str(python), "-c", PROGRAM, f"{folder}/dbos.sqlite", str(runs), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    for line in done.stdout.splitlines():
        if line.startswith("rate "):
            return float(line.split()[1])
    raise BenchFailed(f"dbos did not run: {done.stderr[-500:]}")
