"""Child runs, operations, messages and versions, as agents use them."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel

from onbelay_agent import (
    ChildRunFailed,
    Context,
    Message,
    OperationFailed,
    agent,
)
from onbelay_agent.testing import SavedJournal, TestRun, answer, approve, completes, expires, fails


class Price(BaseModel):
    amount: int


async def echo(value: Any) -> Any:
    return value


@agent
async def pricer(ctx: Context, item: str) -> Price:
    if item == "nothing":
        raise ValueError("nothing costs nothing")
    length = await ctx.step("look up", echo, len(item))
    await ctx.sleep(60)
    return Price(amount=length)


@agent
async def shopper(ctx: Context, items: list[str]) -> list[Any]:
    handles = [await ctx.start_agent(pricer, {"item": item}) for item in items]
    prices: list[Any] = []
    for handle in handles:
        try:
            prices.append((await handle).amount)
        except ChildRunFailed as failed:
            prices.append([failed.state, failed.reason, failed.run_id == handle.run_id])
    return prices


def test_children_run_beside_their_parent_and_end_or_fail() -> None:
    run = TestRun(shopper, agents=[pricer])
    result = run.crash_everywhere({"items": ["rope", "nothing", "belay"]})
    assert result.output == [4, ["FAILED", "AGENT_ERROR", True], 5]
    assert [child.outcome for child in result.children] == ["returned", "raised", "returned"]
    assert result.children[0].output == Price(amount=4)


def test_run_agent_gives_the_output_as_its_type() -> None:
    @agent
    async def buyer(ctx: Context) -> int:
        price = await ctx.run_agent(pricer, {"item": "rope"})
        by_name = await ctx.run_agent("pricer", {"item": "rope"}, returns=Price)
        plain = await ctx.run_agent("pricer", {"item": "rope"})
        return int(price.amount + by_name.amount + plain["amount"])

    result = TestRun(buyer, agents=[pricer]).crash_everywhere()
    assert result.output == 12
    assert [record.step_id for record in result.journal.records if record.type == "started"] == [
        "main:child:pricer#1",
        "main:join:pricer#1",
        "main:child:pricer#2",
        "main:join:pricer#2",
        "main:child:pricer#3",
        "main:join:pricer#3",
    ]


def test_an_agent_that_is_not_there_cannot_be_started() -> None:
    @agent
    async def lonely(ctx: Context) -> str:
        try:
            await ctx.run_agent("nobody")
        except ChildRunFailed as failed:
            return f"{failed} {failed.run_id!r}"
        return ""

    assert TestRun(lonely).execute().output == "there is no agent 'nobody' ''"


def test_giving_up_the_wait_leaves_the_child_until_the_parent_ends() -> None:
    @agent
    async def hasty(ctx: Context) -> str:
        try:
            async with asyncio.timeout(10):
                await ctx.run_agent(pricer, {"item": "rope"})
        except TimeoutError:
            return "too slow"
        return ""

    result = TestRun(hasty, agents=[pricer]).crash_everywhere()
    assert result.output == "too slow"
    assert [child.outcome for child in result.children] == ["stopped"]


def test_a_child_that_was_given_up_can_be_awaited_again() -> None:
    @agent
    async def patient(ctx: Context) -> int:
        child = await ctx.start_agent(pricer, {"item": "rope"})
        try:
            async with asyncio.timeout(10):
                await child
        except TimeoutError:
            ctx.emit("still waiting")
        first, second = await asyncio.gather(child, child.result())
        return int(first.amount + second.amount)

    result = TestRun(patient, agents=[pricer]).crash_everywhere()
    assert (result.output, result.texts()) == (8, ["still waiting"])


def test_three_levels_of_children() -> None:
    @agent
    async def middle(ctx: Context) -> int:
        return int((await ctx.run_agent(pricer, {"item": "rope"})).amount) + 1

    @agent
    async def top(ctx: Context) -> int:
        return await ctx.run_agent(middle, returns=int) + 1

    result = TestRun(top, agents=[middle, pricer]).crash_everywhere()
    assert result.output == 6
    assert result.children[0].children[0].output == Price(amount=4)


@agent
async def operator(ctx: Context, expires: float | None = None) -> Any:
    job = await ctx.operation("job", Price, expires=expires)
    await ctx.step("send", echo, [job.id, job.token])
    try:
        return (await job).amount
    except OperationFailed as failed:
        return [str(failed), failed.reason, failed.expired, failed.operation_id == job.id]


def test_an_operation_is_completed_from_outside() -> None:
    run = TestRun(operator, operations={"job": completes(Price(amount=3))})
    assert run.crash_everywhere().output == 3
    opened = run.execute().journal.records[1].ok_json
    assert opened is not None
    assert "token" in opened


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (fails("no stock", "EMPTY"), ["no stock", "EMPTY", False, True]),
        (expires(), ["it was not completed in time", "EXPIRED", True, True]),
        (completes("free"), ["its result does not fit: ", "", False, True]),
    ],
)
def test_an_operation_that_comes_to_nothing(says: Any, told: list[Any]) -> None:
    output = TestRun(operator, operations={"job": says}).crash_everywhere({"expires": 60}).output
    assert output[0].startswith(told[0])
    assert output[1:] == told[1:]


def test_an_operation_that_nobody_completes_expires() -> None:
    assert TestRun(operator).crash_everywhere({"expires": 60}).output[2] is True
    with pytest.raises(AssertionError, match="main:outcome:job#1 and nobody answers"):
        TestRun(operator).execute()


def test_an_operation_completed_before_it_is_awaited() -> None:
    @agent
    async def late(ctx: Context) -> list[Any]:
        job = await ctx.operation("job")
        await ctx.sleep(60)
        return list(await asyncio.gather(job, job.result()))

    run = TestRun(late, operations={"job": completes([1])})
    assert run.crash_everywhere().output == [[1], [1]]


def test_the_token_is_in_no_representation() -> None:
    @agent
    async def careless(ctx: Context) -> str:
        job = await ctx.operation("job")
        return f"{job!r} {job}"

    output = TestRun(careless).execute().output
    assert "op_run_test.1" in output
    assert "token" not in output


@agent(accepts_messages=True)
async def listener(ctx: Context) -> list[Any]:
    heard: list[Any] = []
    while "stop" not in heard:
        heard += [message.text for message in await ctx.messages()]
        heard += [[m.text, m.data, m.sent_by] for m in await ctx.messages(wait=False)]
    return heard


def test_messages_are_taken_once_and_in_order() -> None:
    said = Message("m1", "ada", "look", {"at": 1})
    run = TestRun(listener, messages=["one", [said], ["two", "three"], [], "stop"])
    expected = ["one", ["look", {"at": 1}, "ada"], "two", "three", "stop"]
    assert run.crash_everywhere().output == expected


def test_an_agent_that_takes_no_messages_says_so() -> None:
    @agent
    async def deaf(ctx: Context) -> None:
        await ctx.messages()

    error = TestRun(deaf).execute().error
    assert error is not None
    assert error.type == "RefusedCall"
    assert "accepts_messages=True" in error.message


# ---- version -------------------------------------------------------------------------------------


async def _old(ctx: Context) -> Any:
    await ctx.step("first", echo, 1)
    await ctx.approve("go?")
    return await ctx.step("second", echo, 2)


async def _new(ctx: Context) -> Any:
    await ctx.step("first", echo, 1)
    version = ctx.version("check", 1)
    if version >= 1:
        await ctx.step("check", echo, 3)
    await ctx.approve("go?")
    return [version, ctx.version("check", 7), await ctx.step("second", echo, 2)]


async def _newest(ctx: Context) -> Any:
    await ctx.step("first", echo, 1)
    version = ctx.version("check", 2)
    if version >= 1:
        await ctx.step("check" if version == 1 else "check twice", echo, 3)
    await ctx.approve("go?")
    return [version, ctx.version("check", 7), await ctx.step("second", echo, 2)]


def _run_of(body: Any) -> TestRun:
    @agent(name="versioned")
    async def versioned(ctx: Context) -> Any:
        return await body(ctx)

    return TestRun(versioned, people=[approve()])


def test_a_new_run_takes_the_newest_version() -> None:
    assert _run_of(_new).crash_everywhere().output == [1, 1, 2]
    assert _run_of(_newest).crash_everywhere().output == [2, 2, 2]


def _beginnings(journal: SavedJournal) -> list[SavedJournal]:
    """What stood in the log after each commit; a version is answered in the one that records it."""
    records = journal.records
    counts = [
        count
        for count in range(len(records))
        if not (":version:" in records[count].step_id and records[count].type == "finished")
        and not (count and records[count - 1].kind == "VERSION")
    ]
    return [dataclasses.replace(journal, records=records[:count]) for count in counts]


def test_an_old_run_keeps_the_version_it_began_with() -> None:
    journal = _run_of(_old).execute().journal
    assert _run_of(_new).replay(journal).output == [0, 0, 2]
    for beginning in _beginnings(journal):
        assert _run_of(_new).replay(beginning).outcome == "replayed"
    journal = _run_of(_new).execute().journal
    assert _run_of(_newest).replay(journal).output == [1, 1, 2]
    for beginning in _beginnings(journal):
        assert _run_of(_newest).replay(beginning).outcome == "replayed"


def test_a_version_has_a_number() -> None:
    @agent
    async def unnumbered(ctx: Context) -> None:
        ctx.version("check", 0)

    error = TestRun(unnumbered).execute().error
    assert error is not None
    assert "1 or more" in error.message


# ---- inside a step -------------------------------------------------------------------------------

NESTED: dict[str, Any] = {
    "step": lambda ctx: ctx.step("inner", echo, 1),
    "tool": lambda ctx: ctx.tool("t"),
    "approve": lambda ctx: ctx.approve("go?"),
    "ask": lambda ctx: ctx.ask("who?"),
    "sleep": lambda ctx: ctx.sleep(1),
    "start_agent": lambda ctx: ctx.run_agent("pricer"),
    "operation": lambda ctx: ctx.operation("job"),
    "messages": lambda ctx: ctx.messages(),
    "artifacts.read": lambda ctx: ctx.artifacts.read("f"),
    "artifacts.save": lambda ctx: ctx.artifacts.save("f", "x"),
    "version": lambda ctx: ctx.version("check", 1),
    "now": lambda ctx: ctx.now(),
    "random": lambda ctx: ctx.random,
    "uuid": lambda ctx: ctx.uuid(),
    "on_finish": lambda ctx: ctx.on_finish(print),
}


@pytest.mark.parametrize("name", NESTED)
def test_calls_inside_a_step_are_refused_by_name(name: str) -> None:
    async def nested(ctx: Context) -> None:
        found = NESTED[name](ctx)
        if asyncio.iscoroutine(found):
            await found

    @agent(accepts_messages=True)
    async def nesting(ctx: Context) -> None:
        await ctx.step("outer", nested, ctx)

    error = TestRun(nesting, people=[approve(), answer("x")]).execute().error
    assert error is not None
    assert error.type == "StepFailed"
    assert f"RefusedCall: ctx.{name} cannot be used inside a step's function" in error.message
