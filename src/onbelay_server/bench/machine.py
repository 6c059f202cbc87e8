"""What there is to know about the machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SYNCS = 100
_PACKAGES = ("onbelay-server", "grpcio", "protobuf", "uvloop", "sqlalchemy", "asyncpg")


def facts() -> dict[str, Any]:
    """Processor, memory, system, versions and how busy it was."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": pages,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": _sqlite_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_average": load_average(),
        "sync_us": sync_us(),
    }


def load_average() -> list[float]:
    """Over 1, 5 and 15 minutes: above the number of cores others took part of the machine."""
    return [round(one, 2) for one in os.getloadavg()]


def sync_us() -> dict[str, float]:
    """How long the disk of temporary files takes to keep 4 KB for good: what FULL pays a commit."""
    took: list[float] = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(round((time.perf_counter() - began) * 1e6, 1))
    took.sort()
    return {"p50": took[SYNCS // 2], "p99": took[SYNCS * 99 // 100]}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _sqlite_version() -> str:
    # Drivers are imported in the store alone, so another process is asked.
    command = [sys.executable, "-c", "import sqlite3; print(sqlite3.sqlite_version)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
