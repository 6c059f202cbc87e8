"""A run that is paused: batches its host holds back, steps in flight, and the end of the copy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from onbelay_agent import Context, Retries, StepFailed, agent
from onbelay_agent.copy import Copy
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.protocol import (
    Begin,
    Begun,
    Cancel,
    Emitted,
    Ended,
    Finish,
    Go,
    Parked,
    Record,
    Recorded,
    Start,
    Stop,
    Suspend,
    ToHost,
)


class HoldingHost:
    """Keeps what it is sent; the test answers."""

    def __init__(self, definition: AgentDefinition, journal: tuple[Record, ...] = ()) -> None:
        self.frames: list[ToHost] = []
        self.changed = asyncio.Event()
        self.copy = Copy(definition, self, asyncio.get_running_loop())
        self.copy.receive(
            Start(
                run_id="r",
                agent="a",
                attempt=1,
                start_us=0,
                input_json="{}",
                seed="s",
                journal=journal,
            )
        )
        self.copy.receive(Go())

    def send(self, frame: ToHost) -> None:
        self.frames.append(frame)
        self.changed.set()

    async def put_blob(self, content: bytes) -> str:
        raise AssertionError("nothing large here")

    async def get_blob(self, sha256: str) -> bytes:
        raise LookupError(sha256)

    async def next(self, kind: type[Any], count: int = 1) -> Any:
        """The `count`-th frame of a kind, once it is there."""
        while len(self.of(kind)) < count:
            assert not self.of(Ended), self.frames[-1]
            self.changed.clear()
            await self.changed.wait()
        return self.of(kind)[count - 1]

    def of(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def record(self, finish: Finish) -> None:
        self.copy.receive(
            Recorded(
                record=Record(
                    type="finished",
                    step_id=finish.step_id,
                    time_us=1,
                    stage=finish.stage,
                    ok_json=finish.ok_json,
                    failure=finish.failure,
                )
            )
        )


gates: dict[str, asyncio.Event] = {}


async def gated(name: str) -> str:
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@agent
async def two_and_one(ctx: Context) -> list[str]:
    first, second = (
        asyncio.create_task(ctx.step("first", gated, "first")),
        asyncio.create_task(ctx.step("second", gated, "second")),
    )
    names = [await first, await ctx.step("third", gated, "third")]
    return [*names, await second]


@pytest.fixture(autouse=True)
def no_gates() -> None:
    gates.clear()


async def test_a_batch_that_is_never_answered_does_not_hold_the_end_back() -> None:
    host = HoldingHost(two_and_one)
    await host.next(Begin)
    host.copy.receive(Suspend())
    ended = await host.next(Ended)
    assert ended.outcome == "suspended"
    assert not host.of(Finish)
    assert not asyncio.all_tasks() - {asyncio.current_task()}


async def test_what_was_in_flight_finishes_first_and_what_was_held_back_is_asked_again() -> None:
    host = HoldingHost(two_and_one)
    begin = await host.next(Begin)
    host.copy.receive(Begun(stage=0))
    await asyncio.sleep(0)
    gates["first"].set()
    host.record(await host.next(Finish))
    held = await host.next(Begin, 2)
    assert [intent.name for intent in held.intents] == ["third"]
    gates["second"].set()
    finish = await host.next(Finish, 2)
    assert finish.stage == 0, "the batch of stage 1 is not known to be recorded"
    host.copy.receive(Suspend())
    ended = await host.next(Ended)
    assert (ended.outcome, host.frames[-1]) == ("suspended", ended)

    started = [
        Record(
            type="started",
            step_id=intent.id,
            time_us=0,
            kind=intent.kind,
            digest=intent.digest,
            stage=begin.stage,
        )
        for intent in begin.intents
    ]
    ends = [
        Record(
            type="finished", step_id=end.step_id, time_us=1, stage=end.stage, ok_json=end.ok_json
        )
        for end in host.of(Finish)
    ]
    again = HoldingHost(two_and_one, (*started, *ends))
    asked = await again.next(Begin)
    assert [intent.name for intent in asked.intents] == ["third"]
    again.copy.abandon()
    await asyncio.sleep(0)


async def test_a_step_in_flight_at_a_suspension_is_recorded_before_the_copy_ends() -> None:
    host = HoldingHost(two_and_one)
    await host.next(Begin)
    host.copy.receive(Begun(stage=0))
    await asyncio.sleep(0)
    host.copy.receive(Suspend())
    await asyncio.sleep(0)
    gates["first"].set()
    gates["second"].set()
    await host.next(Ended)
    kinds = [type(frame) for frame in host.frames]
    assert kinds[-3:] == [Finish, Finish, Ended]


@agent
async def waits_and_steps(ctx: Context) -> str:
    approval = asyncio.create_task(ctx.approve("go?"))
    await ctx.step("first", gated, "first")
    await ctx.step("second", gated, "second")
    return (await approval).comment


async def test_open_waits_are_asked_again_after_a_suspension() -> None:
    host = HoldingHost(waits_and_steps)
    begin = await host.next(Begin)
    host.copy.receive(Begun(stage=0))
    await asyncio.sleep(0)
    gates["first"].set()
    host.record(await host.next(Finish))
    await host.next(Begin, 2)
    host.copy.receive(Suspend())
    await host.next(Ended)
    records = [
        Record(
            type="started",
            step_id=intent.id,
            time_us=0,
            kind=intent.kind,
            digest=intent.digest,
            stage=0,
        )
        for intent in begin.intents
    ]
    end = Record(
        type="finished",
        step_id=host.of(Finish)[0].step_id,
        time_us=1,
        stage=0,
        ok_json='"first"',
    )
    again = HoldingHost(waits_and_steps, (*records, end))
    asked = await again.next(Begin)
    assert [one.step_id for one in asked.reopened] == ["main:approval:approve#1"]
    assert [intent.name for intent in asked.intents] == ["second"]
    again.copy.abandon()
    await asyncio.sleep(0)


@agent
async def gives_up(ctx: Context) -> str:
    tool = asyncio.create_task(ctx.tool("slow"))
    await ctx.step("first", gated, "first")
    other = asyncio.create_task(ctx.tool("other"))
    await ctx.step("second", gated, "second")
    other.cancel()
    tool.cancel()
    await ctx.approve("go?")
    return ""


async def test_nothing_is_cancelled_that_is_not_recorded() -> None:
    host = HoldingHost(gives_up)
    await host.next(Begin)
    host.copy.receive(Begun(stage=0))
    await asyncio.sleep(0)
    gates["first"].set()
    host.record(await host.next(Finish))
    await host.next(Begin, 2)
    step = "main:step:second#1"
    record = Record(type="finished", step_id=step, time_us=2, ok_json='"second"')
    host.copy.receive(Recorded(record=record))
    cancel = await host.next(Cancel)
    assert [step_id.rpartition(":")[2] for step_id in cancel.step_ids] == ["slow#1"]
    host.copy.receive(Begun(stage=1))
    later = await host.next(Cancel, 2)
    assert [step_id.rpartition(":")[2] for step_id in later.step_ids] == ["other#1"]
    host.copy.abandon()
    await asyncio.sleep(0)


# ---- retries -------------------------------------------------------------------------------------

tries: list[int] = []


async def broken() -> None:
    tries.append(1)
    raise ValueError("broken")


@agent
async def retries(ctx: Context) -> None:
    await ctx.step("broken", broken, retries=Retries(5, delay_seconds=3600))


@pytest.mark.parametrize("ending", [Suspend(), Stop(grace_seconds=60)])
async def test_a_wait_between_tries_ends_at_once_and_is_no_failure(ending: Any) -> None:
    tries.clear()
    host = HoldingHost(retries)
    await host.next(Begin)
    host.copy.receive(Begun(stage=0))
    await host.next(Emitted)
    host.copy.receive(ending)
    async with asyncio.timeout(1):
        await host.next(Ended)
    assert (len(tries), host.of(Finish), host.of(Parked)) == (1, [], [])


async def failing_at_last(started: list[int]) -> None:
    started.append(1)
    await gated("go")
    raise ValueError("broken")


started_tries: list[int] = []


@agent
async def tries_again(ctx: Context) -> None:
    try:
        await ctx.step("broken", failing_at_last, started_tries, retries=Retries(1, 0))
    except StepFailed:
        ctx.emit("never")


async def test_no_try_begins_while_the_run_is_ending() -> None:
    started_tries.clear()
    host = HoldingHost(tries_again)
    await host.next(Begin)
    host.copy.receive(Begun(stage=0))
    await asyncio.sleep(0)
    host.copy.receive(Suspend())
    await asyncio.sleep(0)
    gates["go"].set()
    await host.next(Ended)
    assert (started_tries, host.of(Finish)) == ([1], [])
