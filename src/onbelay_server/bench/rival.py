"""A durable-execution library doing the same as row S10: the library DBOS, in a process of its own.

It is no dependency: it is measured only with an interpreter that has it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from onbelay_server.bench.failure import BenchFailed

PROGRAM = """
import logging, sys, time
from dbos import DBOS

DBOS(config={"name": "bench", "system_database_url": "sqlite:///" + sys.argv[1]})
logging.getLogger("dbos").setLevel(logging.ERROR)

@DBOS.step()
def work(number):
    return number

@DBOS.workflow()
def flow(steps):
    return sum(work(number) for number in range(steps))

DBOS.launch()
runs, steps = int(sys.argv[2]), int(sys.argv[3])

def all_of(steps):
    for handle in [DBOS.start_workflow(flow, steps) for _ in range(runs)]:
        assert handle.get_result() == steps * (steps - 1) // 2

all_of(3)
began = time.monotonic()
all_of(steps)
print("rate", runs * steps / (time.monotonic() - began), flush=True)
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
