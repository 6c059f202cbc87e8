from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from onbelay_agent import Context, agent
from onbelay_agent.testing import Result, SavedJournal, TestRun, approve

Body = Callable[[Context], Awaitable[Any]]


async def echo(value: int) -> int:
    return value


def run_of(body: Body) -> TestRun:
    @agent
    async def tried(ctx: Context) -> Any:
        return await body(ctx)

    return TestRun(tried, people=[approve(), approve()])


async def original(ctx: Context) -> Any:
    first = await ctx.step("first", echo, 1)
    await asyncio.gather(ctx.step("left", echo, 2), ctx.step("right", echo, 3))
    await ctx.approve("go?")
    return await ctx.step("last", echo, first)


@pytest.fixture(scope="module")
def saved() -> SavedJournal:
    return run_of(original).execute().journal


def replayed(body: Body, saved: SavedJournal) -> Result:
    return run_of(body).replay(saved)


def test_the_same_code_fits(saved: SavedJournal) -> None:
    kept = SavedJournal.from_json(saved.to_json())
    assert kept == saved
    result = replayed(original, kept)
    assert (result.outcome, result.output) == ("returned", 1)
    for count in range(len(kept.records)):
        part = dataclasses.replace(kept, records=kept.records[:count])
        assert replayed(original, part).outcome == "replayed"


async def other_arguments(ctx: Context) -> Any:
    await ctx.step("first", echo, 2)


async def renamed(ctx: Context) -> Any:
    await ctx.step("other", echo, 1)


async def step_missing(ctx: Context) -> Any:
    await ctx.step("first", echo, 1)
    await ctx.step("left", echo, 2)
    await ctx.approve("go?")


async def step_added(ctx: Context) -> Any:
    await ctx.step("first", echo, 1)
    new = asyncio.create_task(ctx.step("new", echo, 9))
    await asyncio.gather(ctx.step("left", echo, 2), ctx.step("right", echo, 3))
    await new


async def ends_early(ctx: Context) -> Any:
    return await ctx.step("first", echo, 1)


async def another_kind(ctx: Context) -> Any:
    await ctx.tool("first", {})


async def asks_otherwise(ctx: Context) -> Any:
    await ctx.step("first", echo, 1)
    await asyncio.gather(ctx.step("left", echo, 2), ctx.step("right", echo, 3))
    await ctx.approve("really go?")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (other_arguments, "main:step:first#1"),
        (renamed, "main:step:first#1"),
        (step_missing, "main:step:right#1"),
        (step_added, "new"),
        (ends_early, "main:step:left#1"),
        (another_kind, "main:step:first#1"),
        (asks_otherwise, "main:approval:approve#1"),
    ],
)
def test_changed_code_is_held_and_the_step_named(
    changed: Body, named: str, saved: SavedJournal
) -> None:
    result = replayed(changed, saved)
    assert result.outcome == "diverged"
    assert result.error is not None
    assert named in result.error.message
    assert result.journal.records == saved.records


def test_recorded_and_found_are_told_apart(saved: SavedJournal) -> None:
    error = replayed(renamed, saved).error
    assert error is not None
    recorded, _, found = error.message.partition("; found ")
    assert recorded.startswith("main:step:first#1: recorded step:first#1 digest ")
    assert recorded.endswith("… asked at stage 0")
    assert found.startswith("step:other#1 digest ")
    error = replayed(step_missing, saved).error
    assert error is not None
    assert error.message.endswith("found that the agent does not ask for it")
    error = replayed(ends_early, saved).error
    assert error is not None
    assert error.message.endswith("found that the agent ends at stage 1")


async def pure_change(ctx: Context) -> Any:
    first = await ctx.step("first", echo, 1)
    ctx.log("a new line in the log")
    results = await asyncio.gather(ctx.step("left", echo, 2), ctx.step("right", echo, 3))
    await ctx.approve("go?")
    return await ctx.step("last", echo, first) + sum(results)


def test_harmless_changes_fit(saved: SavedJournal) -> None:
    result = replayed(pure_change, saved)
    assert (result.outcome, result.output) == ("returned", 6)


def quiet_and_asking(*, says: bool) -> Body:
    async def body(ctx: Context) -> Any:
        async def worker(asks: bool) -> int:
            if asks:
                return await ctx.step("asked", echo, 1)
            if says:
                ctx.emit("nothing to ask")
            return 0

        named = asyncio.create_task(worker(True), name="named")
        results = await asyncio.gather(worker(False), worker(True), worker(False), worker(True))
        return [*results, await named]

    return body


def test_a_task_that_begins_to_speak_changes_no_other_place() -> None:
    quiet = run_of(quiet_and_asking(says=False)).execute()
    started = [one.step_id for one in quiet.journal.records if one.type == "started"]
    assert sorted(started) == [
        "main/=named.1:step:asked#1",
        "main/worker.2:step:asked#1",
        "main/worker.4:step:asked#1",
    ]
    speaking = replayed(quiet_and_asking(says=True), quiet.journal)
    assert (speaking.outcome, speaking.output) == ("returned", quiet.output)
