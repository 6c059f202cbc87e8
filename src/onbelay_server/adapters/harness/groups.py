"""Process groups that a killed server left behind. A number alone names none: it is used again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_START_FIELD = 19
"""Of /proc/PID/stat behind the name: when the process started, in ticks since the boot."""


def record_of(leader: int) -> str | None:
    """What tells the group of this process from every other there was or will be: this boot, this
    namespace, its number and its start. None when it is gone, or where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        fields = Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot} {namespace} {leader} {fields[_START_FIELD]}"


def kill_recorded(file: Path) -> None:
    """Kill the group whose record is in the file, if its leader is still the same process."""
    try:
        record = file.read_text(errors="replace")
    except OSError:
        return
    words = record.split()
    if len(words) == 4 and words[2].isdecimal() and record_of(int(words[2])) == record:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(int(words[2]), signal.SIGKILL)
