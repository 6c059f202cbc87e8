"""Code that swallows whatever ends it: it is parked, and never entered again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from onbelay_agent import Context, agent
from onbelay_agent.parking import Leash, end_tasks
from onbelay_agent.protocol import Finish, Stop, Suspend
from tests.unit.scripted_host import ScriptedHost

FAR_TOO_OFTEN = 2_000
"""So often in a row is only raised by what never awaits."""


class Swallower:
    """Catches everything, and notes whether it was ever made to spin."""

    def __init__(self) -> None:
        self.caught = 0
        self.effects = 0

    async def for_ever(self, attempt: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while self.caught < FAR_TOO_OFTEN:
            try:
                await attempt()
                self.effects += 1
            except BaseException:  # noqa: BLE001 - that is the point of it
                self.caught += 1


async def grouped(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(3600))


async def timed(ctx: Context) -> None:
    async with asyncio.timeout(3600):
        await ctx.approve("go?")


@pytest.mark.parametrize("attempt", [grouped, timed])
@pytest.mark.parametrize("frame", [Suspend(), Stop(grace_seconds=0.0)])
async def test_agent_code_that_swallows_its_end_is_not_made_to_spin(
    attempt: Callable[[Context], Coroutine[Any, Any, None]], frame: Suspend | Stop
) -> None:
    swallower = Swallower()

    @agent
    async def swallows(ctx: Context) -> None:
        await swallower.for_ever(lambda: attempt(ctx))

    host = ScriptedHost(swallows)
    host.start()
    await host.begun.wait()
    host.copy.receive(frame)
    assert (await host.ended()).abandoned == ()
    del host
    gc.collect()
    assert swallower.caught < FAR_TOO_OFTEN


async def test_cleaning_up_that_waits_several_times_is_let_finish() -> None:
    closed: list[int] = []

    @agent
    async def closes(ctx: Context) -> None:
        try:
            await ctx.approve("go?")
        finally:
            for number in range(8):
                with contextlib.suppress(BaseException):
                    await asyncio.sleep(1)
                closed.append(number)

    host = ScriptedHost(closes)
    host.start()
    await host.begun.wait()
    host.copy.receive(Suspend())
    await host.ended()
    assert closed == list(range(8))


async def test_a_step_that_swallows_its_end_runs_no_more_after_its_time() -> None:
    swallower = Swallower()

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("stubborn", swallower.for_ever, lambda: asyncio.sleep(0))

    host = ScriptedHost(steps)
    host.start()
    await host.begun.wait()
    await asyncio.sleep(0)
    host.copy.receive(Stop(grace_seconds=0.0))
    ended = await host.ended()
    assert (ended.outcome, ended.abandoned) == ("stopped", ())
    assert not host.of(Finish)
    effects = swallower.effects
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    assert swallower.effects == effects
    assert swallower.caught < FAR_TOO_OFTEN


async def test_an_abandoned_copys_step_runs_no_more_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onbelay_agent.ending.LAST_WAIT_SECONDS", 0.0)
    swallower = Swallower()

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("stubborn", swallower.for_ever, lambda: asyncio.Event().wait())

    host = ScriptedHost(steps)
    host.start()
    await host.begun.wait()
    await asyncio.sleep(0)
    host.copy.abandon()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    async with asyncio.timeout(1):
        await asyncio.wait(others)
    assert swallower.caught < FAR_TOO_OFTEN


async def test_a_leash_passes_on_what_its_coroutine_is_sent_and_raises() -> None:
    async def works() -> int:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return 7

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("gone")

    async def held(coro: Coroutine[Any, Any, Any]) -> Any:
        return await Leash(coro)

    task = asyncio.create_task(held(works()))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == 7
    with pytest.raises(KeyError):
        await held(fails())


async def test_a_coroutine_that_was_cut_off_does_not_even_see_its_own_result() -> None:
    seen: list[str] = []

    async def waits(event: asyncio.Event) -> None:
        await event.wait()
        seen.append("went on")

    event = asyncio.Event()
    leash = Leash(waits(event))

    async def held() -> None:
        await leash

    task = asyncio.create_task(held())
    await asyncio.sleep(0)
    leash.cut()
    event.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == []


def test_the_tasks_of_a_stopped_loop_end_or_are_named() -> None:
    swallower = Swallower()
    ended: list[str] = []

    async def well() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("well")

    async def leaves() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise SystemExit

    async def stops() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    tasks = [
        loop.create_task(stops()),
        loop.create_task(well()),
        loop.create_task(leaves()),
        loop.create_task(swallower.for_ever(lambda: asyncio.sleep(0.001))),
    ]
    loop.call_soon(loop.stop)
    loop.run_forever()
    left = end_tasks(loop, 0.01)
    loop.close()
    assert isinstance(tasks[-2].exception(), SystemExit)
    del tasks, loop
    gc.collect()
    assert ended == ["well"]
    assert "Swallower.for_ever" in left
    assert swallower.caught < FAR_TOO_OFTEN


async def test_tasks_that_make_more_tasks_when_they_are_cancelled_are_soon_parked() -> None:
    made: list[int] = []

    @agent
    async def multiplies(ctx: Context) -> None:
        async def one() -> None:
            made.append(1)
            try:
                await ctx.approve("go?")
            finally:
                tasks.extend(asyncio.create_task(one()) for _ in range(2))

        tasks: list[asyncio.Task[None]] = []
        await one()

    host = ScriptedHost(multiplies)
    host.start()
    await host.begun.wait()
    host.copy.receive(Suspend())
    assert (await host.ended()).outcome == "suspended"
    assert len(made) < 6_000
