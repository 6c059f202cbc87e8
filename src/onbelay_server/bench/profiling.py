"""Runs the command line under a profiler: `python -m onbelay_server.bench.profiling OUT serve …`.

Every thread is profiled on its own from the moment the server says where it serves; when it ends,
OUT gets one table of functions a thread, those that take most time themselves first.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

MOST_FUNCTIONS = 40
_READY = "serves gRPC on"


class ThreadProfiles:
    """A profile of each thread, under its name, with the processor time it took."""

    def __init__(self) -> None:
        self._profiles: dict[str, cProfile.Profile] = {}
        self._seconds: dict[str, float] = {}
        self._began: dict[str, float] = {}

    def begin(self) -> None:
        """Profile the current thread from here on. Nested in a call, so what is below it on the
        stack has no totals of its own."""
        name = threading.current_thread().name
        self._profiles[name] = profile = cProfile.Profile()
        self._began[name] = time.thread_time()
        profile.enable()

    def end(self) -> None:
        """The current thread is done."""
        name = threading.current_thread().name
        profile = self._profiles.get(name)
        if profile is not None and name not in self._seconds:
            profile.disable()
            self._seconds[name] = time.thread_time() - self._began[name]

    def cover_threads(self) -> None:
        """Profile threads that start from now on (one profiler a thread: Python 3.11 only)."""
        run = threading.Thread.run

        def profiled(thread: threading.Thread) -> None:
            self.begin()
            try:
                run(thread)
            finally:
                self.end()

        threading.Thread.run = profiled  # type: ignore[method-assign,assignment]

    def write(self, path: Path) -> None:
        """All threads that ended, the busiest first."""
        out = io.StringIO()
        for name, seconds in sorted(self._seconds.items(), key=lambda item: -item[1]):
            if seconds < 0.05:
                continue
            out.write(f"==== {name}: {seconds:.2f} s of processor time\n")
            for order in ("tottime", "cumulative"):
                stats = pstats.Stats(self._profiles[name], stream=out)
                stats.sort_stats(order).print_stats(MOST_FUNCTIONS)
        path.write_text(out.getvalue())


class _WhenReady:
    """Standard output that begins the profile when the server says it is ready."""

    def __init__(self, out: TextIO, profiles: ThreadProfiles) -> None:
        self._out = out
        self._profiles = profiles

    def write(self, text: str) -> int:
        if _READY in text:
            self._profiles.begin()
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()

    def isatty(self) -> bool:
        return False


def main() -> None:
    """Run the rest of the command line as `onbelay`, profiled."""
    path = Path(sys.argv.pop(1))
    profiles = ThreadProfiles()
    if sys.version_info < (3, 12):
        profiles.cover_threads()
    sys.stdout = _WhenReady(sys.stdout, profiles)
    try:
        runpy.run_module("onbelay_server", run_name="__main__", alter_sys=True)
    finally:
        profiles.end()
        profiles.write(path)


if __name__ == "__main__":
    main()
