"""One process per database file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from onbelay_server.adapters.sql.database import DatabaseInUse


class FileLock:
    """Holds `<file>.lock` from its making until `release`, or the end of the process however it
    ends. Raises DatabaseInUse when another process, or this one, holds it."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 20, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise DatabaseInUse(
                f"{database} is in use by another process{f' ({holder})' if holder else ''}"
            ) from None
        os.truncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files."""
        os.close(self._file)
