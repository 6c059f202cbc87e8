"""`python -m onbelay_agent` as a process: frames on its pipes, prints on its standard error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import onbelay_agent
from onbelay_agent.protocol import (
    Begin,
    Begun,
    Ended,
    Finish,
    Go,
    Pulse,
    Ready,
    Record,
    Recorded,
    Start,
    Stop,
)
from onbelay_agent.stdio import (
    EXIT_ENDED,
    EXIT_HOST_LOST,
    EXIT_NO_AGENT,
    Blob,
    BlobKept,
    Frame,
    GetBlob,
    PutBlob,
    decode_frame,
    encode_frame,
    encode_start,
)

SOURCE = """
import os, subprocess, sys, time
from onbelay_agent import agent, Context

@agent
async def hello(ctx: Context, name: str) -> str:
    print("printed")
    await ctx.step("say", lambda: subprocess.run(["echo", "from a process"]).returncode)
    assert sys.stdin.read() == ""
    large = await ctx.step("large", lambda: "x" * 600_000)
    return f"Hello {name} {len(large)}"

@agent
def brood(ctx: Context) -> None:
    if os.fork():
        print("forked")
    time.sleep(60)

@agent
def blocks(ctx: Context) -> None:
    time.sleep(600)
"""


class Child:
    """A child process and the host's side of its pipes."""

    def __init__(
        self, folder: Path, target: str, *options: str, leads_session: bool = False
    ) -> None:
        source = str(Path(onbelay_agent.__file__).parent.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "onbelay_agent", target, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": source, "PATH": os.environ["PATH"]},
            cwd=folder,
            start_new_session=leads_session,
        )

    def tell(self, *lines: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.writelines(lines)
        self.process.stdin.flush()

    def frames(self) -> Iterator[Frame]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            assert len(line) < 1_000_000
            frame = decode_frame(line)
            if not isinstance(frame, Pulse):
                yield frame

    def start(self, input_json: str = "{}", journal: tuple[Record, ...] = ()) -> None:
        start = Start(
            run_id="r",
            agent="a",
            attempt=1,
            start_us=0,
            input_json=input_json,
            seed="s",
            journal=journal,
        )
        self.tell(*encode_start(start), encode_frame(Go()))

    def let_begin(self) -> None:
        """Its first call is recorded."""
        begin = next(frame for frame in self.frames() if isinstance(frame, Begin))
        self.tell(encode_frame(Begun(stage=begin.stage)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agents.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.process.kill()
        with child.process:
            pass


def run_hello(child: Child, blobs: dict[str, bytes], journal: tuple[Record, ...]) -> list[Record]:
    records = list(journal)
    pieces = b""
    child.start('{"name": "Ada"}', journal)
    for frame in child.frames():
        if isinstance(frame, Begin):
            intent = frame.intents[0]
            records.append(
                Record(
                    type="started",
                    step_id=intent.id,
                    time_us=1,
                    kind=intent.kind,
                    digest=intent.digest,
                    stage=frame.stage,
                )
            )
            child.tell(encode_frame(Begun(stage=frame.stage)))
        elif isinstance(frame, PutBlob):
            pieces += frame.content
            if frame.last:
                blobs[frame.sha256] = pieces
                child.tell(encode_frame(BlobKept(sha256=frame.sha256)))
        elif isinstance(frame, GetBlob):
            content = blobs[frame.sha256]
            for offset in range(0, len(content), 250_000):
                piece = content[offset : offset + 250_000]
                last = offset + 250_000 >= len(content)
                answer = Blob(sha256=frame.sha256, offset=offset, content=piece, last=last)
                child.tell(encode_frame(answer))
        elif isinstance(frame, Finish):
            record = Record(
                type="finished",
                step_id=frame.step_id,
                time_us=2,
                stage=frame.stage,
                ok_json=frame.ok_json,
                content_sha256=frame.content_sha256,
            )
            records.append(record)
            child.tell(encode_frame(Recorded(record=record)))
        elif isinstance(frame, Ended):
            assert frame.output_json == '"Hello Ada 600000"'
            break
    return records


def test_a_run_over_pipes_and_its_replay(folder: Path, children: list[Child]) -> None:
    blobs: dict[str, bytes] = {}
    child = Child(folder, "agents:hello")
    children.append(child)
    assert isinstance(next(child.frames()), Ready)
    records = run_hello(child, blobs, ())
    _, errors = child.process.communicate(timeout=20)
    assert child.process.returncode == EXIT_ENDED
    assert b"printed" in errors
    assert b"from a process" in errors
    again = Child(folder, "agents.py:hello")
    children.append(again)
    assert isinstance(next(again.frames()), Ready)
    assert run_hello(again, blobs, tuple(records)) == records


def test_a_child_without_a_host_ends_at_once(folder: Path, children: list[Child]) -> None:
    child = Child(folder, "agents:blocks")
    children.append(child)
    child.start()
    child.let_begin()
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.process.wait(timeout=10) == EXIT_HOST_LOST


def test_a_child_without_a_host_ends_what_it_started(folder: Path, children: list[Child]) -> None:
    child = Child(folder, "agents:brood", leads_session=True)
    children.append(child)
    child.start()
    child.let_begin()
    assert child.process.stdin is not None
    assert child.process.stderr is not None
    assert child.process.stderr.readline() == b"forked\n"
    child.process.stdin.close()
    assert child.process.wait(timeout=10) == -signal.SIGKILL
    # What it forked holds its standard error: this ends when that is gone too.
    assert child.process.stderr.read() == b""


def test_a_stopped_child_names_its_thread_and_exits(folder: Path, children: list[Child]) -> None:
    child = Child(folder, "agents:blocks")
    children.append(child)
    child.start()
    ended: Ended | None = None
    for frame in child.frames():
        if isinstance(frame, Begin):
            child.tell(
                encode_frame(Begun(stage=frame.stage)), encode_frame(Stop(grace_seconds=0.1))
            )
        elif isinstance(frame, Ended):
            ended = frame
    assert ended is not None
    assert (ended.outcome, ended.abandoned) == ("stopped", ("main:step:blocks#1",))
    assert child.process.wait(timeout=10) == EXIT_ENDED


def test_the_definition_is_described(folder: Path, children: list[Child]) -> None:
    child = Child(folder, "agents:hello", "--describe")
    children.append(child)
    output, _ = child.process.communicate(timeout=20)
    assert json.loads(output)["name"] == "hello"
    absent = Child(folder, "agents:absent", "--describe")
    children.append(absent)
    _, errors = absent.process.communicate(timeout=20)
    assert absent.process.returncode == EXIT_NO_AGENT
    assert b"absent" in errors
