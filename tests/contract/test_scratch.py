"""Children's folders are cleared away after a server that was killed, with the processes in them,
and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onbelay_server.adapters.harness.scratch import ScratchFolders

_HOLDER = """
import sys, time
from onbelay_server.adapters.harness.scratch import ScratchFolders
folders = ScratchFolders()
folder = folders.make()
(folder / "left").write_text("x")
for leader in sys.argv[1:]:
    folders.occupy(folders.make(), int(leader))
print(folder, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes, each the leader of a group."""
    made = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2)]
    yield made
    for one in made:
        one.kill()
        one.wait()


def test_a_killed_servers_folders_go_when_the_next_one_starts(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLDER], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().decode().strip())
        mine = ScratchFolders()
        assert (folder / "left").exists(), "another that lives keeps what it has"
        mine.close()
        holder.send_signal(signal.SIGKILL)
    assert (folder / "left").exists()
    mine = ScratchFolders()
    assert not folder.parent.exists()
    assert mine.make().is_dir()
    mine.close()
    assert os.listdir(temporary) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing tells processes apart")
def test_groups_that_a_killed_server_left_are_killed_and_none_that_took_their_number(
    temporary: Path, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    left, later = sleepers
    command = [sys.executable, "-c", _HOLDER, str(left.pid), str(later.pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        ScratchFolders().close()
        assert left.poll() is None, "its server lives"
        holder.send_signal(signal.SIGKILL)
    for file in temporary.glob("onbelay-work-*/*.group"):
        boot, namespace, pid, start = file.read_text().split()
        if int(pid) == later.pid:
            file.write_text(f"{boot} {namespace} {pid} {int(start) - 1}")
    (next(temporary.glob("onbelay-work-*")) / "odd.group").write_text("no record")
    ScratchFolders().close()
    assert left.wait(timeout=5) == -signal.SIGKILL
    assert later.poll() is None
    assert os.listdir(temporary) == []


def test_nothing_else_is_cleared_away(temporary: Path) -> None:
    foreign = temporary / "elsewhere"
    foreign.mkdir()
    (foreign / "kept").write_text("x")
    (temporary / "onbelay-work-link").symlink_to(foreign)
    (temporary / "onbelay-work-file").write_text("x")
    ScratchFolders().close()
    assert sorted(os.listdir(temporary)) == ["elsewhere", "onbelay-work-file", "onbelay-work-link"]
    assert (foreign / "kept").exists()
