from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from onbelay_agent import Context, RunStopped, RunSuspended, agent
from onbelay_agent.protocol import Begin, Cancel, Finish, Stop, Suspend
from tests.unit.scripted_host import ScriptedHost


async def waits(ctx: Context) -> None:
    await ctx.approve("go?")


async def wraps(ctx: Context) -> None:
    try:
        await ctx.approve("go?")
    except BaseException as error:
        raise ValueError("wrapped") from error


async def returns(ctx: Context) -> str:
    with contextlib.suppress(BaseException):
        await ctx.approve("go?")
    return "done"


async def goes_on(ctx: Context) -> None:
    while True:
        with contextlib.suppress(BaseException):
            await ctx.approve("go?")


async def groups(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(waits(ctx))


async def sleeps_at_the_end(ctx: Context) -> None:
    try:
        await ctx.approve("go?")
    finally:
        await asyncio.sleep(3600)


async def yields_for_ever(ctx: Context) -> None:
    while True:
        with contextlib.suppress(BaseException):
            await ctx.approve("go?")
        while True:
            with contextlib.suppress(BaseException):
                await asyncio.sleep(0)


SHAPES = [waits, wraps, returns, goes_on, groups, sleeps_at_the_end, yields_for_ever]


@pytest.mark.parametrize("body", SHAPES)
@pytest.mark.parametrize("outcome", ["stopped", "suspended"])
async def test_the_flag_alone_decides_the_outcome(
    body: Callable[[Context], Any], outcome: str
) -> None:
    host = ScriptedHost(agent(body))
    host.start()
    await host.begun.wait()
    host.copy.receive(Stop(grace_seconds=0.0) if outcome == "stopped" else Suspend())
    ended = await host.ended()
    assert ended.outcome == outcome
    assert ended.abandoned == ()
    assert not host.of(Cancel)


async def test_calls_refuse_once_the_run_is_ending() -> None:
    seen: list[BaseException] = []

    @agent
    async def tries(ctx: Context) -> None:
        for _ in range(3):
            try:
                await ctx.approve("go?")
            except BaseException as error:  # noqa: BLE001 - what it is, is the test
                seen.append(error)
        ctx.emit("dropped")

    host = ScriptedHost(tries)
    host.start()
    await host.begun.wait()
    host.copy.receive(Stop(grace_seconds=0.0))
    ended = await host.ended()
    assert [type(error) for error in seen] == [RunStopped] * 3
    assert ended.emits == ()
    assert len(host.of(Begin)) == 1


async def test_suspension_runs_finally_blocks_and_not_on_finish() -> None:
    calls: list[str] = []

    @agent
    async def tidies(ctx: Context) -> None:
        ctx.on_finish(lambda: calls.append("on_finish"))
        try:
            await ctx.approve("go?")
        except RunSuspended:
            calls.append("suspended")
            raise
        finally:
            calls.append("finally")

    host = ScriptedHost(tidies)
    host.start()
    await host.parked.wait()
    host.copy.receive(Suspend())
    assert (await host.ended()).outcome == "suspended"
    assert calls == ["suspended", "finally"]


async def test_a_step_in_flight_may_finish_within_the_grace() -> None:
    gate = asyncio.Event()

    async def work() -> int:
        await gate.wait()
        return 7

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("work", work)

    host = ScriptedHost(steps)
    host.start()
    await host.begun.wait()
    host.copy.receive(Stop(grace_seconds=20.0))
    await asyncio.sleep(0)
    gate.set()
    ended = await host.ended()
    assert ended.outcome == "stopped"
    assert [frame.ok_json for frame in host.of(Finish)] == ["7"]


async def test_after_the_grace_a_step_is_cancelled() -> None:
    cancelled: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("work", work)

    host = ScriptedHost(steps)
    host.start()
    await host.begun.wait()
    await asyncio.sleep(0)
    host.copy.receive(Stop(grace_seconds=60.0))
    host.copy.receive(Stop(grace_seconds=0.01))
    assert (await host.ended()).outcome == "stopped"
    assert cancelled == [True]
    assert not host.of(Finish)


async def test_a_thread_that_does_not_stop_is_named() -> None:
    release = threading.Event()

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("stubborn", release.wait)

    host = ScriptedHost(steps)
    host.start()
    await host.begun.wait()
    await asyncio.sleep(0)
    host.copy.receive(Stop(grace_seconds=0.0))
    ended = await host.ended()
    release.set()
    assert ended.abandoned == ("main:step:stubborn#1",)


async def test_a_thread_that_emits_ends_with_the_run() -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(ctx: Context) -> None:
        loop.call_soon_threadsafe(started.set)
        while True:
            ctx.progress(1)

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("loop", work, ctx)

    host = ScriptedHost(steps)
    host.start()
    await started.wait()
    host.copy.receive(Stop(grace_seconds=0.0))
    assert (await host.ended()).abandoned == ()


async def test_stop_before_anything_ran() -> None:
    host = ScriptedHost(agent(waits))
    host.copy.receive(Stop(grace_seconds=5.0))
    host.start()
    assert (await host.ended()).outcome == "stopped"
    assert not host.of(Begin)


async def test_an_abandoned_copy_sends_nothing_more() -> None:
    host = ScriptedHost(agent(groups))
    host.start()
    await host.begun.wait()
    count = len(host.frames)
    host.copy.abandon()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(host.frames) == count
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_steps_nobody_waits_for_end_with_the_run() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    @agent
    async def leaves(ctx: Context) -> str:
        task = asyncio.create_task(ctx.step("work", work))
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.0)
        return "done"

    host = ScriptedHost(leaves)
    host.start()
    assert (await host.ended()).outcome == "returned"


async def test_on_finish_functions_that_do_not_end_do_not_hold_up_a_stop() -> None:
    ran: list[int] = []

    async def endless() -> None:
        ran.append(1)
        await asyncio.Event().wait()

    @agent
    async def registers(ctx: Context) -> None:
        for _ in range(3):
            ctx.on_finish(endless)
        await ctx.approve("go?")

    host = ScriptedHost(registers)
    host.start()
    await host.begun.wait()
    host.copy.receive(Stop(grace_seconds=0.0))
    async with asyncio.timeout(1):
        ended = await host.ended()
    assert ended.outcome == "stopped"
    assert ended.abandoned == ()
    assert len(ran) == 3
