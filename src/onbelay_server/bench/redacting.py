"""Runs the command line with a redactor that takes its time: `python -m
onbelay_server.bench.redacting serve …`.

It changes no text. What it costs is known, so the bench can tell what a redactor in its place does
to the event path.
"""

from __future__ import annotations

import runpy
import time
from typing import Final

from onbelay_server import wiring

DUMMY_US: Final = 10


def dummy(text: str) -> str:
    """The text, after a while in which nothing else of the interpreter runs."""
    until = time.perf_counter_ns() + DUMMY_US * 1_000
    while time.perf_counter_ns() < until:
        pass
    return text


if __name__ == "__main__":
    wiring.redact = dummy
    runpy.run_module("onbelay_server", run_name="__main__", alter_sys=True)
