"""What a test needs from the machine, and the one switch that forbids leaving it out."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

REQUIRE_ALL = "ONBELAY_REQUIRE_ALL"


def require(name: str, present: object) -> None:
    """Skip the running test by name when `present` is false.

    With ONBELAY_REQUIRE_ALL=1 the test fails instead: where everything is expected to be
    installed, a skipped test would hide what is broken.
    """
    if present:
        return
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{name} is absent and {REQUIRE_ALL}=1", pytrace=False)
    pytest.skip(f"{name} is absent")


def find_program(name: str) -> str | None:
    """Path of a program: beside this interpreter (programs that come as wheels), then on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)
