"""Libraries that own threads, sockets or processes: in agent code they are refused by name."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from onbelay_agent import Context, RefusedCall, StepFailed, agent
from onbelay_agent.testing import Result, TestRun

pool = concurrent.futures.ThreadPoolExecutor(1)


def run(body: Callable[[Context], Any]) -> Result:
    @agent
    async def tried(ctx: Context) -> Any:
        return await body(ctx)

    return TestRun(tried).execute()


async def a_thread(ctx: Context) -> None:
    threading.Thread(target=print).start()


async def an_executor(ctx: Context) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as own:
        own.submit(print)


async def to_thread(ctx: Context) -> None:
    await asyncio.to_thread(print)


async def a_timer(ctx: Context) -> None:
    threading.Timer(1, print).start()


async def a_process(ctx: Context) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)  # noqa: ASYNC221 - refused


async def an_async_process(ctx: Context) -> None:
    await asyncio.create_subprocess_exec(sys.executable)


async def a_shell(ctx: Context) -> None:
    os.system("true")  # noqa: ASYNC221 - refused


async def a_connection(ctx: Context) -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))


async def a_lookup(ctx: Context) -> None:
    socket.getaddrinfo("localhost", 80)


async def a_stream(ctx: Context) -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def a_running_executor(ctx: Context) -> None:
    await asyncio.wrap_future(pool.submit(int))


REFUSED = [
    (a_thread, "thread"),
    (an_executor, "thread"),
    (to_thread, "run_in_executor"),
    (a_timer, "thread"),
    (a_process, "a new process"),
    (an_async_process, "subprocess_exec"),
    (a_shell, "os.system"),
    (a_connection, "socket.connect"),
    (a_lookup, "socket.getaddrinfo"),
    (a_stream, "create_connection"),
    (a_running_executor, "a thread or executor"),
]


@pytest.mark.parametrize(("body", "named"), REFUSED, ids=[body.__name__ for body, _ in REFUSED])
def test_what_reaches_outside_is_refused_by_name(body: Any, named: str) -> None:
    pool.submit(int).result()
    error = run(body).error
    assert error is not None
    assert error.type == "RefusedCall"
    assert named in error.message
    assert "step" in error.message


def all_of_it() -> int:
    thread = threading.Thread(target=time.sleep, args=(0,))
    thread.start()
    thread.join()
    subprocess.run([sys.executable, "-c", ""], check=True)
    socket.getaddrinfo("127.0.0.1", 80)
    return pool.submit(int).result()


def test_in_a_step_all_of_it_may_be_done() -> None:
    async def body(ctx: Context) -> int:
        return await ctx.step("all", all_of_it)

    assert run(body).output == 0


def test_outside_of_runs_nothing_is_refused() -> None:
    run(a_thread)
    assert all_of_it() == 0


def test_a_thread_may_not_let_agent_code_go_on() -> None:
    refusals: list[str] = []

    async def body(ctx: Context) -> None:
        woken = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            for call in (
                lambda: loop.call_soon_threadsafe(woken.set_result, 1),
                lambda: woken.set_result(1),
            ):
                try:
                    call()
                except RefusedCall as refused:
                    refusals.append(str(refused))

        pool.submit(wake).result()
        await asyncio.shield(woken)
        await asyncio.get_running_loop().create_future()

    error = run(body).error
    assert error is not None
    assert error.type == "stuck"
    assert "earlier refused: loop.call_soon_threadsafe was called in thread" in error.message
    assert len(refusals) >= 1


def test_a_step_may_not_let_agent_code_go_on() -> None:
    async def body(ctx: Context) -> str:
        event = asyncio.Event()

        async def sets() -> None:
            event.set()

        waiter = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        try:
            await ctx.step("sets", sets)
        except StepFailed as error:
            waiter.cancel()
            return str(error)
        return "went on"

    output = run(body).output
    assert "RefusedCall: something the agent waits for was set outside" in output


def test_a_call_made_for_a_step_cannot_be_awaited_in_it() -> None:
    async def body(ctx: Context) -> None:
        call = ctx.approve("go?")

        async def waits() -> None:
            await call

        await ctx.step("waits", waits)

    error = run(body).error
    assert error is not None
    assert "RefusedCall: main:approval:approve#1 was awaited outside" in error.message


def test_a_thread_of_a_step_may_not_use_the_context() -> None:
    async def body(ctx: Context) -> str:
        def start() -> str:
            seen: list[str] = []

            def inner() -> None:
                for use in (lambda: ctx.emit("x"), lambda: ctx.step("inner", int), ctx.now):
                    try:
                        use()
                    except RefusedCall as refused:
                        seen.append(str(refused))

            thread = threading.Thread(target=inner)
            thread.start()
            thread.join()
            return "; ".join(seen)

        return await ctx.step("starts", start)

    assert run(body).output.count("outside of its run's own code") == 3


def test_a_step_whose_thread_goes_on_is_not_tried_again() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def hangs() -> None:
        begun.append(1)
        gate.wait()

    async def body(ctx: Context) -> None:
        try:
            await ctx.step("hangs", hangs, timeout=0.05, retries=3)
        finally:
            gate.set()

    error = run(body).error
    assert error is not None
    assert "its thread cannot be ended, so it is not tried again" in error.message
    assert begun == [1]
