"""Arming failpoints: which pass, what happens, and what is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onbelay_server.ports import failpoints


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def crashed(text: str, passes: int) -> int:
    """After how many passes a process so armed was killed; 0 when it was not."""
    code = (
        "import sys\n"
        "from onbelay_server.ports import failpoints as f\n"
        "f.arm(sys.argv[1])\n"
        f"for number in range(1, {passes + 1}):\n"
        "    print(number, flush=True)\n"
        "    f.reach('before_commit')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, text]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return len(done.stdout.split()) if done.returncode else 0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("before_commit=crash", 1),
        ("before_commit=crash:3", 3),
        ("inside_batch=crash, before_commit=crash:2", 2),
        ("inside_batch=crash", 0),
        ("before_commit=crash:1.0", 1),
        ("before_commit=crash:0.0", 0),
        ("", 0),
    ],
)
def test_a_process_is_killed_at_the_pass_that_is_named(text: str, at: int) -> None:
    assert crashed(text, 5) == at


def test_the_same_seed_makes_the_same_choices() -> None:
    once = crashed("before_commit=crash:0.2/7", 50)
    assert once > 0
    assert crashed("before_commit=crash:0.2/7", 50) == once


@pytest.mark.parametrize(
    "text",
    [
        "nowhere=crash",
        "before_commit",
        "before_commit=explode",
        "before_commit=crash:soon",
        "before_commit=delay",
        "before_commit=pause",
    ],
)
def test_what_is_unclear_is_refused(text: str) -> None:
    with pytest.raises(failpoints.FailpointError, match=r"."):
        failpoints.arm(text)


async def test_a_pause_lasts_until_its_file_is_there(tmp_path: Path) -> None:
    gate = tmp_path / "go"
    failpoints.arm(f"before_commit=pause:{gate}@2")
    await failpoints.pass_by("before_commit")
    passing = asyncio.create_task(failpoints.pass_by("before_commit"))
    done, _ = await asyncio.wait([passing], timeout=0.05)
    assert not done
    gate.touch()
    await asyncio.wait_for(passing, 5.0)
    # A thread waits as well, and the third pass is free.
    await asyncio.to_thread(failpoints.reach, "before_commit")


async def test_what_is_not_armed_is_passed() -> None:
    failpoints.arm("inside_batch=delay:60")
    failpoints.reach("before_commit")
    await failpoints.pass_by("after_orphan_found")
