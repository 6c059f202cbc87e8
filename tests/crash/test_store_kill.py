"""A process killed in the middle of writing: what it was told is there, and nothing is torn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.sql import DatabaseInUse, SqlStore, migrate
from onbelay_server.domain.change import Change, Reads
from onbelay_server.ports.store import RunFilter
from tests.contract.entities import ADMIN, append, whole_log

ROOT = Path(__file__).parents[2]


def started(url: str) -> subprocess.Popen[str]:
    paths = [str(ROOT / part) for part in ("src", "gen/python", "clients/python", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.store_child", url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    )


def acknowledged(child: subprocess.Popen[str], lines: int) -> dict[str, int]:
    """What the child says until it has said so many lines; then it is killed and heard out."""
    told: dict[str, int] = {}
    assert child.stdout is not None
    with child.stdout as output:
        for count, text in enumerate(output, 1):
            if count == lines:
                child.send_signal(signal.SIGKILL)
            # The last line may be cut: the rest of it was never said.
            if text.endswith("\n"):
                run_id, sequence = text.split()
                told[run_id] = max(int(sequence), told.get(run_id, 0))
    child.wait()
    return told


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await migrate(url)
    for lines in (1, 40, 333):
        told = acknowledged(started(url), lines)
        store = await SqlStore.open(url, codec=ProtoEventCodec(), clock=SystemClock())
        try:
            runs = await store.list_runs(ADMIN, RunFilter(), after=None, limit=100_000)
            kept = {run.id: run.last_sequence for run in runs}
            for run in runs:
                # Whole units only: two events with the run, ten more at once.
                assert run.last_sequence in (2, 12)
                assert await whole_log(store, run.id) == list(range(1, run.last_sequence + 1))
            assert {name: kept.get(name, 0) >= told[name] for name in told} == dict.fromkeys(
                told, True
            )
            # The next child begins with an empty store.
            emptied = Change(result=None, delete=runs)
            await store.write(Reads(runs=list(kept)), lambda _r, _n, change=emptied: change)
        finally:
            await store.close()


async def test_a_second_process_on_the_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await migrate(url)
    child = started(url)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        with pytest.raises(DatabaseInUse, match=str(child.pid)):
            await SqlStore.open(url, codec=ProtoEventCodec(), clock=SystemClock())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    # Its death, however sudden, frees the file.
    store = await SqlStore.open(url, codec=ProtoEventCodec(), clock=SystemClock())
    try:
        assert (await append(store, "w0-1")).runs["w0-1"].run.last_sequence >= 3
    finally:
        await store.close()
