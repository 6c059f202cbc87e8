"""What a person at a terminal meets: the question, the live view, a reload, the demo."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.grpc.cli_server import AGENTS, cli_server, onbelay

EXPECTED = ("cleaned.csv", "entities.csv", "report.html", "lineage.json", "lineage.svg")

LISTENER = """

@agent(accepts_messages=True)
async def listener(ctx: Context) -> int:
    return len(await ctx.messages())
"""


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONBELAY_")}
    path = os.pathsep.join(part for part in sys.path if part)
    return kept | {"PYTHONPATH": path, "TERM": "xterm-256color", "COLUMNS": "100"}


class Terminal:
    """A command that believes it talks to a person."""

    def __init__(self, *arguments: str) -> None:
        self._own, theirs = pty.openpty()
        self.screen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onbelay_server", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(),
        )
        os.close(theirs)

    def wait_for(self, text: str, seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < end, f"{text!r} never came:\n{self.screen}"
            if not self._read():
                raise AssertionError(f"it ended without {text!r}:\n{self.screen}")

    def type(self, line: str) -> None:
        os.write(self._own, line.encode() + b"\n")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._own)
        return self.process.wait(20)

    def _read(self) -> bool:
        # Asked first: what it wrote before its end is there by then.
        has_ended = self.process.poll() is not None
        ready, _, _ = select.select([self._own], [], [], 0.2)
        if ready:
            try:
                content = os.read(self._own, 65536)
            except OSError:  # how Linux says that the other side is gone
                return False
            self.screen += content.decode("utf-8", "replace")
            return bool(content)
        return not has_ended


def agents_file(folder: Path) -> Path:
    file = folder / "terminal_agents.py"
    file.write_text(AGENTS, encoding="utf-8")
    return file


def test_a_person_is_asked_and_their_yes_counts(tmp_path: Path) -> None:
    terminal = Terminal("run", f"{agents_file(tmp_path)}:asker")
    terminal.wait_for("Approve?")
    assert "Send the letter?" in terminal.screen
    assert '{"pages": 2}' in terminal.screen
    terminal.type("yes")
    terminal.wait_for("Comment")
    terminal.type("go ahead")
    assert terminal.end() == 0
    assert "approved by user:developer" in terminal.screen


def test_a_person_answers_a_question(tmp_path: Path) -> None:
    terminal = Terminal("run", f"{agents_file(tmp_path)}:questioner")
    terminal.wait_for("Answer")
    terminal.type("many")
    terminal.wait_for("ANSWER_MISMATCH")
    terminal.type("41")
    assert terminal.end() == 0
    assert "42" in terminal.screen.splitlines()[-1]


def test_ctrl_c_says_what_becomes_of_the_run(tmp_path: Path) -> None:
    terminal = Terminal("run", f"{agents_file(tmp_path)}:sleeper")
    terminal.wait_for("BLOCKED")
    terminal.interrupt()
    assert terminal.end() == 130
    assert "ended with the server it brought" in terminal.screen


def test_ctrl_c_leaves_a_run_to_its_server(tmp_path: Path) -> None:
    with cli_server(tmp_path) as server:
        connection = ("--server", server.address, "--api-key", server.token)
        terminal = Terminal("run", "sleeper", *connection)
        terminal.wait_for("BLOCKED")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "goes on; watch it: onbelay runs watch run_" in terminal.screen


def test_who_waits_for_a_message_is_told_how_one_is_sent(tmp_path: Path) -> None:
    file = agents_file(tmp_path)
    with file.open("a", encoding="utf-8") as more:
        more.write(LISTENER)
    terminal = Terminal("run", f"{file}:listener")
    terminal.wait_for("onbelay runs send", 20)
    assert terminal.end() == 3


def test_later_leaves_it_undecided(tmp_path: Path) -> None:
    terminal = Terminal("run", f"{agents_file(tmp_path)}:asker")
    terminal.wait_for("Approve?")
    terminal.type("later")
    assert terminal.end() == 3


def test_dev_starts_anew_when_the_file_changes(tmp_path: Path) -> None:
    file = agents_file(tmp_path)
    state = tmp_path / "state"
    options = ["--listen", "127.0.0.1:0", "--http", "off", "--state-dir", str(state)]
    with subprocess.Popen(
        [sys.executable, "-m", "onbelay_server", "dev", str(file), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as process:
        try:
            agents = _agents_once_ready(process, state)
            assert "greeter" in agents
            file.write_text(AGENTS.replace("greeter", "welcomer"), encoding="utf-8")
            agents = _agents_once_ready(process, state)
            assert "welcomer" in agents
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
    assert process.returncode == 0


def _agents_once_ready(process: subprocess.Popen[str], state: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Onbelay serves gRPC on "):
            place = {"ONBELAY_STATE_DIR": str(state), "ONBELAY_SERVER": line.split()[-1]}
            return onbelay("agents", "list", **place).out
    raise AssertionError("it ended before it was ready")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demo_leaves_its_five_files(tmp_path: Path) -> None:
    target = tmp_path / "demo"
    ended = onbelay("demo", "--out", str(target))
    assert ended.code == 0, ended
    for name in EXPECTED:
        assert (target / name).stat().st_size > 0
        assert str(target / name) in ended.out
    assert "sha256" in ended.out
    assert "onbelay runs watch run_" in ended.out


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_the_demo_prints_to_look_closer_works_when_copied(tmp_path: Path) -> None:
    target = tmp_path / "demo"
    terminal = Terminal("demo", "--out", str(target))
    terminal.wait_for("Approve?", 90)
    assert (target / "evidence.json").stat().st_size > 10_000
    (line,) = re.findall(
        r"(ONBELAY_SERVER=\S+) (ONBELAY_STATE_DIR=\S+) onbelay (.*)", terminal.screen
    )
    place = dict(each.split("=", 1) for each in line[:2])
    shown = onbelay(*line[2].split(), **place)
    assert shown.code == 0, shown
    assert "PENDING" in shown.out
    terminal.type("later")
    assert terminal.end() == 3
    state = f"ONBELAY_STATE_DIR={target / '.state'}"
    assert f"{state} onbelay approvals approve apr_" in terminal.screen
    assert "Decide it with: onbelay" not in terminal.screen
