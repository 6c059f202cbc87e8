"""Agents in this process that raise what would end a thread, or block one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from onbelay_agent.protocol import Begin, Begun, Ended, Finish, Record, Recorded, Start, ToHost
from onbelay_server.adapters.catalog.loading import load_catalog
from onbelay_server.adapters.harness import PythonHarness, python
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.ports.harness import Copy, CopyLost, Launch
from tests.patience import until

SOURCE = """
import asyncio, sys, time
from pathlib import Path
from onbelay_agent import agent, Context

async def leave():
    sys.exit(3)

async def interrupt():
    raise KeyboardInterrupt

async def nested():
    await asyncio.gather(leave(), interrupt())

@agent
async def rude(ctx: Context, mode: str) -> str:
    match mode:
        case "leaves":
            await leave()
        case "interrupts":
            await interrupt()
        case "leaves a step":
            await ctx.step("s", leave)
        case "interrupts a step":
            await ctx.step("s", interrupt)
        case "nests in a step":
            await ctx.step("s", nested)
        case "well":
            pass
        case path:
            Path(path).touch()
            while not Path(path + ".go").exists():
                time.sleep(0.01)
    return mode
"""


class House:
    """One harness with one loop, and what its runs say."""

    def __init__(self, folder: Path) -> None:
        source = folder / "rude.py"
        source.write_text(SOURCE)
        catalog = load_catalog([f"{source}:rude"], with_installed=False)
        self.harness = PythonHarness(catalog, loops=1, on_exhausted=lambda: None)

    async def end_of(self, mode: str) -> Ended | CopyLost:
        """Run the agent; every step is recorded as soon as it is said."""
        ended: asyncio.Future[Ended | CopyLost] = asyncio.get_running_loop().create_future()
        copies: list[Copy] = []

        def hear(frames: Sequence[ToHost | CopyLost]) -> None:
            for frame in frames:
                match frame:
                    case Begin():
                        copies[0].send(Begun(stage=frame.stage))
                    case Finish():
                        record = Record(
                            type="finished",
                            step_id=frame.step_id,
                            time_us=1,
                            stage=frame.stage,
                            ok_json=frame.ok_json,
                            failure=frame.failure,
                        )
                        copies[0].send(Recorded(record=record))
                    case Ended() | CopyLost():
                        ended.set_result(frame)

        start = Start(
            run_id="run_1",
            agent="rude",
            attempt=1,
            start_us=0,
            input_json=f'{{"mode":"{mode}"}}',
            seed="s",
        )
        revision = AgentRevision(
            agent_id="agt_1", revision=1, create_us=0, created_by="user:ada", blueprint="rude"
        )
        launch = Launch(
            revision=revision,
            start=start,
            begun=lambda: None,
            hear=hear,
            put_blob=_no_blob,
            get_blob=_no_blob,
        )
        copies.append(await self.harness.launch(launch))
        async with asyncio.timeout(5):
            return await ended


async def _no_blob(_: object) -> NoReturn:
    raise LookupError("no blobs here")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    await made.harness.close()


@pytest.mark.parametrize(
    "mode", ["leaves", "interrupts", "leaves a step", "interrupts a step", "nests in a step"]
)
async def test_what_one_run_raises_ends_that_run_alone(house: House, mode: str) -> None:
    ended = await house.end_of(mode)
    assert isinstance(ended, Ended)
    assert ended.outcome == "raised"
    after = await house.end_of("well")
    assert isinstance(after, Ended)
    assert after.output_json == '"well"'


async def test_a_thread_that_the_end_left_behind_is_named(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("ERROR")
    monkeypatch.setattr(python, "_KILL_SECONDS", 0.05)
    blocked = tmp_path / "blocked"
    run = asyncio.ensure_future(house.end_of(str(blocked)))
    await until(blocked.exists)
    await house.harness.close()
    (tmp_path / "blocked.go").touch()
    run.cancel()
    (line,) = [one for one in caplog.records if getattr(one, "action", "") == "threads_abandoned"]
    assert line.getMessage() == "threads left behind: agent-loop-1"
