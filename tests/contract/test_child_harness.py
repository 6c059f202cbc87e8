"""Children that misbehave: whatever one does, its run hears of its end soon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from onbelay_agent.protocol import Ended, Start, ToHost
from onbelay_server.adapters.catalog.loading import load_catalog
from onbelay_server.adapters.harness import ChildHarness
from onbelay_server.domain.agent import AgentRevision, HarnessKind
from onbelay_server.ports.harness import Copy, CopyLost, Launch

SOURCE = """
import gc, os, signal, time
from onbelay_agent import agent, Context
from onbelay_agent.stdio import PipeHost

def escape():
    "A grandchild in a session of its own that holds every pipe it was born with."
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    with open(os.environ["ESCAPED"], "w") as file:
        file.write(str(pid))

MODE = os.environ.get("MODE")
if MODE == "dies":
    escape()
    os._exit(3)
if MODE == "freezes":
    escape()
    os.kill(os.getpid(), signal.SIGSTOP)

@agent(child=True)
async def rude(ctx: Context) -> str:
    global MODE
    host = next(one for one in gc.get_objects() if isinstance(one, PipeHost))
    if MODE == "floods":
        host._lines.put(b'{"pulse":{}}\\n' * 50_000)
        MODE = '{"ended":{"outcome":"returned","output_json":"1"}}'
    host._lines.put(MODE.encode() + b"\\n")
    time.sleep(60)
"""


class Heard:
    """What a launch's run hears, in order."""

    def __init__(self) -> None:
        self.frames: list[ToHost | CopyLost] = []

        self._ended = asyncio.Event()
        self._has_begun = asyncio.Event()

    def begin(self) -> None:
        self._has_begun.set()

    @property
    def has_begun(self) -> bool:
        return self._has_begun.is_set()

    async def first(self) -> None:
        """Return once there was a place for the copy."""
        async with asyncio.timeout(10):
            await self._has_begun.wait()

    def take(self, frames: Sequence[ToHost | CopyLost]) -> None:
        self.frames += frames
        if isinstance(frames[-1], Ended | CopyLost):
            self._ended.set()

    async def last(self) -> ToHost | CopyLost:
        """The last word: Ended or CopyLost."""
        async with asyncio.timeout(10):
            await self._ended.wait()
        return self.frames[-1]

    async def put_blob(self, content: bytes) -> str:
        raise OSError("no space left on device")

    async def get_blob(self, sha256: str) -> bytes:
        raise LookupError(sha256)


@pytest.fixture
def escaped(tmp_path: Path) -> Iterator[Path]:
    """Where a grandchild that escaped leaves its process id; it ends with the test."""
    place = tmp_path / "escaped"
    yield place
    if place.exists():
        os.kill(int(place.read_text()), signal.SIGKILL)


@asynccontextmanager
async def harness_of_one(folder: Path) -> AsyncIterator[ChildHarness]:
    """With a place for a single child."""
    source = folder / "rude.py"
    source.write_text(SOURCE)
    catalog = load_catalog([f"{source}:rude"], with_installed=False)
    harness = ChildHarness(catalog, max_children=1, max_blob_bytes=2**20)
    try:
        yield harness
    finally:
        async with asyncio.timeout(10):
            await harness.close()


@asynccontextmanager
async def child(folder: Path, mode: str) -> AsyncIterator[tuple[Copy, Heard]]:
    async with harness_of_one(folder) as harness:
        yield await launched(harness, folder, mode)


async def launched(harness: ChildHarness, folder: Path, mode: str) -> tuple[Copy, Heard]:
    heard = Heard()
    start = Start(
        run_id="run_1",
        agent="rude",
        attempt=1,
        start_us=0,
        input_json="{}",
        seed="s",
        env={"ESCAPED": str(folder / "escaped"), "MODE": mode},
    )
    revision = AgentRevision(
        agent_id="agt_1",
        revision=1,
        create_us=0,
        created_by="user:ada",
        blueprint="rude",
        harness=HarnessKind.CHILD,
    )
    launch = Launch(
        revision=revision,
        begun=heard.begin,
        start=start,
        hear=heard.take,
        put_blob=heard.put_blob,
        get_blob=heard.get_blob,
    )
    return await harness.launch(launch), heard


async def test_a_dead_child_is_lost_though_its_pipes_are_held(
    tmp_path: Path, escaped: Path
) -> None:
    async with child(tmp_path, "dies") as (_, heard):
        assert await heard.last() == CopyLost(reason="the child process exited with code 3")


async def test_a_frozen_child_is_killed_though_its_pipes_are_held(
    tmp_path: Path, escaped: Path
) -> None:
    async with child(tmp_path, "freezes") as (copy, _):
        await asyncio.to_thread(_appears, escaped)
        begun = time.monotonic()
        assert list(await copy.kill()) == []
        assert time.monotonic() - begun < 2


async def test_a_copy_begins_when_there_is_a_place_for_it(tmp_path: Path, escaped: Path) -> None:
    async with harness_of_one(tmp_path) as harness:
        first, heard_first = await launched(harness, tmp_path, "")
        second, heard_second = await launched(harness, tmp_path, "")
        _, heard_third = await launched(harness, tmp_path, "dies")
        await heard_first.first()
        assert not heard_second.has_begun
        await second.kill()
        assert not heard_third.has_begun
        await first.kill()
        assert await heard_third.last() == CopyLost(reason="the child process exited with code 3")
        assert (heard_second.has_begun, heard_third.has_begun) == (False, True)


@pytest.mark.parametrize(
    "line",
    [
        '{"emitted":{"emits":[{"place":"nowhere","kind":"text"}]}}',
        '{"begin":{"stage":0,"intents":[{"id":"x","kind":"MAGIC","name":"","digest":"",'
        '"request_json":"{}"}]}}',
        '{"ended":{"outcome":"won"}}',
        '{"start":{"run_id":"another"}}',
        '{"put_blob":{"sha256":"00","offset":7,"content":"","last":true}}',
    ],
)
async def test_a_child_that_breaks_the_protocol_is_cut_off(tmp_path: Path, line: str) -> None:
    async with child(tmp_path, line) as (_, heard):
        last = await heard.last()
    assert isinstance(last, CopyLost)
    assert last.reason.startswith("the child said something that is no frame: ")


async def test_a_child_that_cannot_be_served_is_lost(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    line = json.dumps({"put_blob": {"sha256": empty, "offset": 0, "content": "", "last": True}})
    async with child(tmp_path, line) as (_, heard):
        assert await heard.last() == CopyLost(
            reason="the service could not serve the child process"
        )


async def test_others_have_their_turn_while_a_child_floods(tmp_path: Path) -> None:
    async with child(tmp_path, "floods") as (_, heard):
        last = asyncio.create_task(heard.last())
        before, most = 0, 0
        while not last.done():
            await asyncio.sleep(0)
            most, before = max(most, len(heard.frames) - before), len(heard.frames)
        assert await last == Ended(outcome="returned", output_json="1")
    assert len(heard.frames) > 50_000
    assert most < 2_000  # a pipe holds 5,000 of them


def _appears(file: Path) -> None:
    until = time.monotonic() + 10
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < until, f"{file} never appeared"
        time.sleep(0.01)


async def test_a_file_beside_the_agent_stands_in_for_no_module_of_python(tmp_path: Path) -> None:
    (tmp_path / "operator.py").write_text("")
    async with child(tmp_path, '{"ended":{"outcome":"returned","output_json":"1"}}') as (_, heard):
        assert await heard.last() == Ended(outcome="returned", output_json="1")
