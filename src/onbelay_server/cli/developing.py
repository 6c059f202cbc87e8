"""`onbelay dev`: a server with one file's agents that starts anew when a file beside it changes."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.text import Text

from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.serving import Database, Http, Listen, StateDir
from onbelay_server.cli.terminal import err

app = typer.Typer()

LOOK_SECONDS = 0.4
# A developer who saved a file waits for nothing.
DRAIN_SECONDS = 2


@app.command("dev")
def dev(
    target: Annotated[str, typer.Argument(help="hello.py, or hello.py:hello.")],
    listen: Listen = None,
    http: Http = None,
    database: Database = None,
    state_dir: StateDir = None,
) -> None:
    """Serve the agents of a file and start the server anew when its folder's code changes.

    Runs in flight go on after the restart; one that no longer fits the code is held.
    """
    path, _, function = target.partition(":")
    file = Path(path)
    if not file.is_file():
        raise CommandFailed(f"no such file: {path}", ExitCode.USAGE)
    given = {
        "--listen": listen,
        "--http": http,
        "--database": database,
        "--state-dir": str(state_dir) if state_dir else None,
    }
    options = [part for name, value in given.items() if value for part in (name, value)]
    raise typer.Exit(_Reloader(file, function, options).run())


def agents_in(source: str) -> list[str]:
    """Names of the functions with `@agent`, without running the file; SyntaxError if it is none."""
    names: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                attribute = "attr" if isinstance(called, ast.Attribute) else "id"
                if getattr(called, attribute, "") == "agent":
                    names.append(node.name)
    return names


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Time and size of every Python file below `folder`, hidden folders left out."""
    found: dict[Path, tuple[int, int]] = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        for name in files:
            if name.endswith(".py"):
                path = Path(root, name)
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue  # An editor is just replacing it; the next look sees it.
                found[path] = (state.st_mtime_ns, state.st_size)
    return found


class _Reloader:
    """Keeps one child serving, and replaces it when the code changed."""

    def __init__(self, file: Path, function: str, options: list[str]) -> None:
        self._file = file
        self._function = function
        self._options = options
        self._ending = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Serve until a signal; the last child's exit code."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        seen = snapshot(self._file.parent)
        self._start()
        while not self._ending:
            time.sleep(LOOK_SECONDS)
            now = snapshot(self._file.parent)
            if now != seen:
                changed = sorted(
                    path.name
                    for path in now.keys() | seen.keys()
                    if now.get(path) != seen.get(path)
                )
                seen = now
                err().print(Text(f"Changed: {', '.join(changed)}. Starting anew."))
                self._stop()
                self._start()
        return self._stop()

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._ending and self._child is not None:
            self._child.kill()
        self._ending = True

    def _start(self) -> None:
        functions = [self._function] if self._function else self._found()
        if not functions:
            self._child = None
            return
        targets = [part for name in functions for part in ("--agents", f"{self._file}:{name}")]
        command = [sys.executable, "-m", "onbelay_server", "serve", *targets, *self._options]
        command += ["--drain-seconds", str(DRAIN_SECONDS)]
        # A group of its own: the terminal's Ctrl-C reaches the child once, through this process.
        self._child = subprocess.Popen(command, start_new_session=True)

    def _found(self) -> list[str]:
        try:
            names = agents_in(self._file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError) as error:
            err().print(Text(f"{self._file}: {error}. Waiting for a change.", style="red"))
            return []
        if not names:
            err().print(Text(f"{self._file} has no function with @agent. Waiting for a change."))
        return names

    def _stop(self) -> int:
        if self._child is None:
            return ExitCode.SUCCEEDED
        if self._child.poll() is None:
            self._child.terminate()
        try:
            return self._child.wait(DRAIN_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()
