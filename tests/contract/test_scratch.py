"""Children's folders are cleared away after a server that was killed, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onbelay_server.adapters.harness.scratch import ScratchFolders

_HOLDER = """
import sys, time
from onbelay_server.adapters.harness.scratch import ScratchFolders
folders = ScratchFolders()
folder = folders.make()
(folder / "left").write_text("x")
print(folder, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


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


def test_nothing_else_is_cleared_away(temporary: Path) -> None:
    foreign = temporary / "elsewhere"
    foreign.mkdir()
    (foreign / "kept").write_text("x")
    (temporary / "onbelay-work-link").symlink_to(foreign)
    (temporary / "onbelay-work-file").write_text("x")
    ScratchFolders().close()
    assert sorted(os.listdir(temporary)) == ["elsewhere", "onbelay-work-file", "onbelay-work-link"]
    assert (foreign / "kept").exists()
