"""Steps of an agent: what they give, what they raise, and how they are tried again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from onbelay_agent import (
    Context,
    RefusedCall,
    Retries,
    StepFailed,
    agent,
)
from onbelay_agent.testing import TestRun
from tests.unit.agent_body import Size, doubled, output_of


def measured(width: int) -> Size:
    return Size(width=width, height=2)


def test_steps_give_their_functions_results() -> None:
    async def body(ctx: Context) -> Any:
        size = await ctx.step("measure", measured, 3)
        assert isinstance(size, Size)
        threads = await ctx.step("thread", lambda: threading.current_thread().name)
        late = await ctx.step("late", lambda: doubled(4))
        return [size.width, await ctx.step("double", doubled, 4), threads, late]

    assert output_of(body) == [3, 8, "step main:step:thread#1", 8]


def test_a_failed_step_raises_what_was_recorded() -> None:
    def broken() -> None:
        raise KeyError("gone")

    async def body(ctx: Context) -> Any:
        with pytest.raises(StepFailed) as caught:
            await ctx.step("break", broken)
        return [caught.value.step, caught.value.error_type, str(caught.value)]

    assert output_of(body) == ["break", "KeyError", "break: KeyError: 'gone'"]


@pytest.mark.parametrize("value", [float("nan"), {1: 2}, object(), {"a"}])
def test_a_result_that_cannot_be_stored_fails_with_the_step_named(value: object) -> None:
    async def body(ctx: Context) -> Any:
        with pytest.raises(StepFailed, match="odd: ValueNotStorable: its result cannot be stored"):
            await ctx.step("odd", lambda: value)

    output_of(body)


def test_a_step_is_tried_again_and_says_so() -> None:
    tries: list[int] = []

    def flaky() -> int:
        tries.append(1)
        if len(tries) % 3:
            raise OSError("busy")
        return 5

    async def body(ctx: Context) -> Any:
        return await ctx.step("flaky", flaky, retries=Retries(2, delay_seconds=60))

    @agent
    async def tried(ctx: Context) -> Any:
        return await body(ctx)

    result = TestRun(tried).execute()
    assert result.output == 5
    logs = [event for event in result.events if event.kind == "log"]
    assert [event.place for event in logs] == [
        "main:step:flaky#1/attempt1:emit#1",
        "main:step:flaky#1/attempt1:emit#2",
    ]
    assert "OSError: busy" in logs[0].text


def test_a_step_has_its_time() -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    async def body(ctx: Context) -> Any:
        with pytest.raises(StepFailed, match="TimeoutError"):
            await ctx.step("endless", endless, timeout=0.001)

    output_of(body)


def test_large_results_travel_as_blobs() -> None:
    async def body(ctx: Context) -> Any:
        text = await ctx.step("large", lambda: "ü" * 300_000)
        return [len(text), text * 2]

    length, text = output_of(body)
    assert length == 300_000
    assert len(text) == 600_000


def test_other_context_calls_inside_a_step_are_refused() -> None:
    async def nested(ctx: Context) -> list[str]:
        refused = []
        for call in (ctx.approve, ctx.artifacts.read):
            with pytest.raises(RefusedCall, match="inside a step"):
                call("a")
            refused.append(call.__name__)
        with pytest.raises(RefusedCall):
            ctx.now()
        return refused

    async def body(ctx: Context) -> Any:
        return await ctx.step("nested", nested, ctx)

    assert output_of(body) == ["approve", "read"]


def test_a_plain_function_is_one_step() -> None:
    @agent
    def plain(ctx: Context, count: int) -> tuple[int, str]:
        ctx.emit("working")
        return count, threading.current_thread().name

    @agent
    def broken(ctx: Context) -> None:
        raise OverflowError("too much")

    result = TestRun(plain).crash_everywhere({"count": 3})
    assert result.output == (3, "step main:step:plain#1")
    failed = TestRun(broken).execute()
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("OverflowError", "too much")
