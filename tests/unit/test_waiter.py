"""A wait ends with a sign or in its time, and no sign is lost."""

from __future__ import annotations

import asyncio

from onbelay_server.app.waiter import Waiter

FOR_EVER = 3600.0


async def test_a_sign_ends_the_wait() -> None:
    waiter = Waiter()
    waiting = asyncio.ensure_future(waiter.wait(FOR_EVER))
    await asyncio.sleep(0)
    waiter.wake()
    waiter.wake()
    assert await waiting
    waiter.close()


async def test_a_sign_given_before_the_wait_is_for_it_and_for_it_alone() -> None:
    waiter = Waiter()
    waiter.wake()
    assert await waiter.wait(0)
    assert not await waiter.wait(0)
    waiter.wake()
    waiter.forget()
    assert not await waiter.wait(0)


async def test_the_time_passes_also_behind_a_longer_wait() -> None:
    waiter = Waiter()
    waiting = asyncio.ensure_future(waiter.wait(FOR_EVER))
    await asyncio.sleep(0)
    waiter.wake()
    assert await waiting
    # The timer of the wait before this one would ring in an hour.
    assert not await waiter.wait(0.002)
    waiter.close()


async def test_an_early_timer_does_not_end_a_longer_wait() -> None:
    waiter = Waiter()
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(waiter.wait(0.002))
    await asyncio.sleep(0)
    waiter.wake()
    assert await waiting
    began = loop.time()
    assert not await waiter.wait(0.02)
    assert loop.time() - began >= 0.018


async def test_a_cancelled_wait_leaves_the_next_one_whole() -> None:
    waiter = Waiter()
    waiting = asyncio.ensure_future(waiter.wait(FOR_EVER))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    waiter.wake()
    assert await waiter.wait(FOR_EVER)
    waiter.close()
