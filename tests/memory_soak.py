"""Start and end very many runs, open and leave very many watches: the server's memory stays flat.

`python -m tests.memory_soak` prints the memory after each tenth, and ends with 1 when it still grew
once every cache was full.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from onbelay_server.bench.processes import measured, service

ROUNDS = 10
WARM_ROUNDS = 3
"""After so many tenths the caches are full: what is kept of runs is bounded by thousands."""
SLACK_SHARE = 0.03
SLACK_BYTES = 4 * 2**20
"""What an allocator that gives nothing back may add."""
SETTLE_SECONDS = 2.0


def soak(runs: int, watches: int) -> list[int]:
    """Resident bytes after each tenth."""
    sizes = []
    with service("normal", workers=64) as server:
        for number in range(1, ROUNDS + 1):
            began = time.monotonic()
            measured(server, "churn", runs=runs // ROUNDS, watches=watches // ROUNDS)
            took = time.monotonic() - began
            time.sleep(SETTLE_SECONDS)
            sizes.append(server.rss_bytes)
            done = f"{runs * number // ROUNDS:,} runs, {watches * number // ROUNDS:,} watches"
            print(f"{done}: {sizes[-1] / 2**20:.1f} MB ({took:.0f} s)", flush=True)
    return sizes


def is_flat(sizes: Sequence[int]) -> bool:
    """Whether nothing more is kept at the end than when the caches were full."""
    return sizes[-1] <= max(sizes[:WARM_ROUNDS]) * (1 + SLACK_SHARE) + SLACK_BYTES


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.memory_soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--watches", type=int, default=100_000)
    options = parser.parse_args()
    sizes = soak(options.runs, options.watches)
    print("flat" if is_flat(sizes) else "it grew")
    return 0 if is_flat(sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
