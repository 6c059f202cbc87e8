"""Where children work: folders that do not outlive their server, however it ended, and whose
processes do not either."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from onbelay_server.adapters.harness.groups import kill_recorded, record_of

_PREFIX: Final = "onbelay-work-"
_GROUP: Final = ".group"
"""Ends the name of the file beside a folder that says which process group works in it."""


class ScratchFolders:
    """Empty folders, below one that this process holds a lock on for as long as it lives.

    A process that was killed cannot clear up, so the next one to start does it: a folder whose lock
    is free has nobody any more, and what still works in it belongs to no run. The lock lies on the
    folder itself, in this machine's own temporary folder, since a state folder may be shared
    between machines.
    """

    def __init__(self) -> None:
        _clear_abandoned()
        self._root, self._lock = _claimed()

    def make(self) -> Path:
        """A folder of its own. Raises OSError."""
        return Path(tempfile.mkdtemp(dir=self._root))

    def occupy(self, folder: Path, leader: int) -> None:
        """Remember whose process group works in the folder. Raises OSError."""
        record = record_of(leader)
        if record is not None:
            _group_file(folder).write_text(record)

    def remove(self, folder: Path) -> None:
        """Nobody works in it any more."""
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            _group_file(folder).unlink()

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        os.close(self._lock)


def _claimed() -> tuple[Path, int]:
    while True:
        root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _locked(root)
        if lock is not None:
            if root.is_dir():
                return root, lock
            os.close(lock)
        # Somebody who clears up came between the two and took it for abandoned.


def _clear_abandoned() -> None:
    for root in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _locked(root)
        if lock is not None:
            for group in root.glob(f"*{_GROUP}"):
                kill_recorded(group)
            shutil.rmtree(root, ignore_errors=True)
            os.close(lock)


def _group_file(folder: Path) -> Path:
    return folder.with_name(folder.name + _GROUP)


def _locked(root: Path) -> int | None:
    """The folder's lock, unless it is another's, gone, or no folder of this user's."""
    try:
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None
