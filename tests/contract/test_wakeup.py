from __future__ import annotations

import asyncio
import threading

from onbelay_server.adapters.wakeup.local import LocalWakeup


async def test_everyone_who_listens_hears() -> None:
    wakeup = LocalWakeup()
    first: list[frozenset[str]] = []
    second: list[frozenset[str]] = []
    wakeup.listen(first.append)
    end = wakeup.listen(second.append)

    wakeup.wake(["r1", "list"])
    wakeup.wake(["r2"])
    assert first == []
    await asyncio.sleep(0)
    assert first == second == [frozenset({"r1", "r2", "list"})]

    end()
    end()
    wakeup.wake(["r3"])
    await asyncio.sleep(0)
    assert first[1:] == [frozenset({"r3"})]
    assert len(second) == 1


async def test_who_ended_hears_nothing_that_was_under_way() -> None:
    wakeup = LocalWakeup()
    heard: list[frozenset[str]] = []
    end = wakeup.listen(heard.append)
    wakeup.wake(["r1"])
    end()
    await asyncio.sleep(0)
    assert heard == []


async def test_a_hint_may_come_from_any_thread() -> None:
    wakeup = LocalWakeup()
    heard = asyncio.Event()
    thread_ids: list[int] = []

    def hear(_topics: frozenset[str]) -> None:
        thread_ids.append(threading.get_ident())
        heard.set()

    wakeup.listen(hear)
    await asyncio.to_thread(wakeup.wake, ["r1"])
    await heard.wait()
    assert thread_ids == [threading.get_ident()]


async def test_a_listener_whose_loop_is_closed_harms_nobody() -> None:
    wakeup = LocalWakeup()
    heard: list[frozenset[str]] = []

    async def listen_elsewhere() -> None:
        wakeup.listen(lambda _topics: None)

    await asyncio.to_thread(asyncio.run, listen_elsewhere())
    wakeup.listen(heard.append)
    wakeup.wake(["r1"])
    wakeup.wake([])
    await asyncio.sleep(0)
    assert heard == [frozenset({"r1"})]
