from __future__ import annotations

import asyncio
import datetime
import socket
from typing import Any

import pytest

from onbelay_agent import (
    ArtifactFailed,
    Context,
    Expired,
    InvalidAnswer,
    RefusedCall,
    Rejected,
    ToolDenied,
    ToolFailed,
    ValueNotStorable,
    agent,
    tool,
)
from onbelay_agent.testing import TestRun, answer, approve, expire, reject, silence
from tests.unit.agent_body import Size, doubled, outcome_of, output_of


def test_tools_are_called_with_their_arguments() -> None:
    @tool(risk="write")
    async def send(to: str) -> str:
        return f"sent to {to}"

    @tool
    def fail() -> None:
        raise OSError("broken")

    async def body(ctx: Context) -> Any:
        with pytest.raises(ToolFailed, match="broken"):
            await ctx.tool(fail)
        with pytest.raises(ToolFailed, match="to"):
            await ctx.tool("send", {"to": 3})
        with pytest.raises(ToolDenied):
            await ctx.tool("unknown")
        return await ctx.tools([("send", {"to": "a"}), (send, {"to": "b"})])

    result = outcome_of(body, tools=[send, fail])
    assert result.output == ["sent to a", "sent to b"]
    assert sum(result.effects.values()) == 5


def test_people_decide() -> None:
    async def body(ctx: Context) -> Any:
        first = await ctx.approve("go?", "all of it", {"rows": 3})
        with pytest.raises(Rejected) as caught:
            await ctx.approve("more?")
        with pytest.raises(Expired):
            await ctx.approve("still?")
        size = await ctx.ask("how large?", Size)
        with pytest.raises(InvalidAnswer):
            await ctx.ask("how many?", int)
        plain = await ctx.ask("what?", {"type": "object"})
        return [first.by, first.comment, caught.value.comment, size.height, plain]

    people = [
        approve("fine", by="ada"),
        reject("no more"),
        expire(),
        answer({"width": 1, "height": 2}),
        answer("many"),
        answer({"a": 1}),
    ]
    assert output_of(body, people=people) == ["ada", "fine", "no more", 2, {"a": 1}]


def test_nobody_to_decide_is_said() -> None:
    @agent
    async def waits(ctx: Context) -> None:
        await ctx.approve("go?")

    with pytest.raises(AssertionError, match="main:approval:approve#1"):
        TestRun(waits).execute()


def test_time_is_durable() -> None:
    async def body(ctx: Context) -> Any:
        began = ctx.now()
        await ctx.sleep(datetime.timedelta(days=30))
        await asyncio.sleep(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await ctx.approve("never")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ctx.approve("never"), 5)
        return (ctx.now() - began).total_seconds()

    seconds = output_of(body, people=[silence(), silence()])
    assert seconds == pytest.approx(30 * 86400 + 70, abs=0.1)


def test_a_sleep_without_an_end_lasts_until_it_is_given_up() -> None:
    async def body(ctx: Context) -> Any:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(float("inf")), 60)
        async with asyncio.timeout(float("inf")):
            return await ctx.step("double", doubled, 4)

    assert output_of(body) == 8


def test_artifacts_are_read_and_saved() -> None:
    async def body(ctx: Context) -> Any:
        content = await ctx.artifacts.read("in.csv")
        saved = await ctx.artifacts.save("out.csv", content.upper())
        with pytest.raises(ArtifactFailed):
            await ctx.artifacts.read("absent")
        assert [item.name for item in ctx.artifacts.inputs] == ["in.csv"]
        return [saved.name, saved.size_bytes, saved.media_type, bool(saved.id)]

    result = outcome_of(body, artifacts={"in.csv": b"a,b"})
    assert result.output == ["out.csv", 3, "text/csv", True]
    assert result.artifacts == {"out.csv": b"A,B"}


def test_chance_falls_alike_on_every_replay() -> None:
    async def one(ctx: Context) -> list[Any]:
        await ctx.sleep(1)
        return [ctx.random.random(), str(ctx.uuid())]

    async def body(ctx: Context) -> Any:
        return await asyncio.gather(one(ctx), one(ctx))

    first, second = output_of(body)
    assert first != second


def test_emits_are_placed_and_written_once() -> None:
    def work(ctx: Context) -> None:
        ctx.progress(1, 2, "half")
        ctx.emit("inside")

    async def body(ctx: Context) -> Any:
        ctx.emit("first")
        await ctx.step("work", work, ctx)
        ctx.log("second", "WARNING", count=2)
        ctx.report("table", {"rows": [1]})
        with pytest.raises(ValueNotStorable):
            ctx.report("bad", object())
        with pytest.raises(ValueNotStorable):
            ctx.emit("x" * 300_000)

    result = outcome_of(body)
    assert [(event.place, event.kind) for event in result.events] == [
        ("main:emit#1", "text"),
        ("main:step:work#1/attempt1:emit#1", "progress"),
        ("main:step:work#1/attempt1:emit#2", "text"),
        ("main:emit#2", "log"),
        ("main:emit#3", "report"),
    ]
    assert result.events[3].data_json == '{"count":2}'


@pytest.mark.parametrize(
    "number",
    [float("nan"), float("inf"), 10**400, -(10**400)],
    ids=["nan", "infinity", "huge", "huge below 0"],
)
def test_numbers_that_nothing_can_hold_are_refused_where_they_are_said(number: float) -> None:
    async def body(ctx: Context) -> Any:
        with pytest.raises(ValueNotStorable, match="finite"):
            ctx.progress(number)
        with pytest.raises(ValueNotStorable, match="finite"):
            ctx.progress(1, number)
        with pytest.raises(ValueError, match="seconds"):
            ctx.step("double", doubled, 1, timeout=number)
        with pytest.raises(ValueError, match="seconds"):
            ctx.operation("it", expires=number)

    output_of(body)


def test_a_name_that_is_no_unicode_is_refused() -> None:
    async def body(ctx: Context) -> Any:
        for call in (ctx.tool, ctx.artifacts.read, ctx.run_agent):
            with pytest.raises(ValueNotStorable, match="not Unicode"):
                call("half \ud800")
        with pytest.raises(ValueNotStorable, match="not Unicode"):
            ctx.step("half \ud800", doubled, 1)
        with pytest.raises(ValueNotStorable, match="not Unicode"):
            ctx.version("half \ud800", 1)

    output_of(body)


def test_what_belongs_in_a_step_is_refused_by_name() -> None:
    async def body(ctx: Context) -> Any:
        loop = asyncio.get_running_loop()
        with pytest.raises(RefusedCall, match="run_in_executor"):
            await asyncio.to_thread(int)
        with pytest.raises(RefusedCall, match="create_connection"):
            await asyncio.open_connection("localhost", 1)
        with pytest.raises(RefusedCall, match="subprocess_exec"):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(RefusedCall, match="getaddrinfo"):
            await loop.getaddrinfo("localhost", 1)
        with pytest.raises(RefusedCall, match="add_reader"):
            loop.add_reader(0, print)
        with pytest.raises(RefusedCall, match="set_task_factory"):
            loop.set_task_factory(None)
        with pytest.raises(RefusedCall, match="sock_recv"), socket.socket() as unused:
            await loop.sock_recv(unused, 1)
        waits = [ctx.step("a", doubled, 1), ctx.step("b", doubled, 2)]
        with pytest.raises(RefusedCall, match="give it tasks"):
            await next(iter(asyncio.as_completed(waits)))
        for wait in waits:
            wait.close()

    @agent
    async def tried(ctx: Context) -> Any:
        return await body(ctx)

    result = TestRun(tried).execute()
    assert result.error is None


def test_an_agent_that_waits_for_nothing_is_stuck() -> None:
    async def body(ctx: Context) -> Any:
        await asyncio.Event().wait()

    result = outcome_of(body)
    assert result.outcome == "stuck"
    assert result.error is not None
    assert "Event.wait" in result.error.message


def test_an_endless_loop_of_yields_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onbelay_agent.copy.HANDLES_A_STAGE", 20_000)

    @agent
    async def spins(ctx: Context) -> None:
        while True:  # noqa: ASYNC110 - the case itself
            await asyncio.sleep(0)

    result = TestRun(spins).execute()
    assert result.outcome == "stuck"


def test_what_the_agent_raises_or_cannot_return_fails_the_run() -> None:
    async def raises(ctx: Context) -> Any:
        raise LookupError("nothing there")

    async def leaves(ctx: Context) -> Any:
        raise SystemExit(3)

    async def returns(ctx: Context) -> Any:
        return object()

    errors = [outcome_of(body).error for body in (raises, leaves, returns)]
    assert [error.type for error in errors if error] == [
        "LookupError",
        "SystemExit",
        "ValueNotStorable",
    ]


def test_input_that_does_not_fit_fails_the_run() -> None:
    @agent
    async def counts(ctx: Context, count: int) -> int:
        return count

    result = TestRun(counts).execute({"count": "x"})
    assert result.error is not None
    assert result.error.type == "InvalidInput"
    assert "count" in result.error.message


def test_on_finish_runs_once_at_the_real_end() -> None:
    calls: list[str] = []

    async def later() -> None:
        calls.append("async")

    @agent
    async def finishes(ctx: Context) -> None:
        ctx.on_finish(lambda: calls.append("sync"))
        ctx.on_finish(later)
        await ctx.approve("go?")
        calls.append("end")

    TestRun(finishes, people=[approve()]).execute()
    assert calls == ["end", "async", "sync"]


def test_env_session_and_run_are_fixed() -> None:
    @agent
    async def tells(ctx: Context) -> list[str]:
        return [ctx.env["CITY"], ctx.session, ctx.run.id, ctx.run.labels["team"]]

    run = TestRun(tells, env={"CITY": "Graz"}, session="s1", labels={"team": "a"})
    assert run.execute().output == ["Graz", "s1", "run_test", "a"]


def test_a_call_that_is_never_awaited_leaves_no_trace() -> None:
    async def body(ctx: Context) -> Any:
        ctx.step("unused", doubled, 1).close()
        return await ctx.step("unused", doubled, 2)

    result = outcome_of(body)
    assert result.output == 4
    assert set(result.effects) == {"main:step:unused#2"}


def test_tasks_have_the_same_names_on_every_replay() -> None:
    async def named() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    async def body(ctx: Context) -> Any:
        tasks = [asyncio.create_task(named()), asyncio.create_task(named(), name="mine")]
        await ctx.step("between", doubled, 1)
        return [await task for task in tasks]

    assert output_of(body) == ["Task-2", "mine"]
