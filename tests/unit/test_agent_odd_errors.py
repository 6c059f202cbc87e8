"""Exceptions that cannot be read, and functions that end in ways of their own."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from onbelay_agent import Context, Retries, StepFailed, agent, values
from onbelay_agent.errors import described
from onbelay_agent.protocol import Finish, Stop
from onbelay_agent.testing import TestRun
from tests.unit.scripted_host import ScriptedHost


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


class Interrupting(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Stopping(StopIteration):
    def __str__(self) -> str:
        raise SystemExit(3)


class Shouting(str):
    def encode(self, *_: Any) -> NoReturn:
        raise OSError("no")


class Odd(Exception):
    def __str__(self) -> str:
        return Shouting("half \ud800 of a pair")


class Breaks(BaseModel):
    name: str = ""

    @field_validator("name")
    @classmethod
    def _checked(cls, name: str) -> str:
        if name:
            raise KeyError(name)
        return name

    @field_serializer("name")
    def _written(self, name: str) -> str:
        raise Interrupting


UNREADABLE = "(its text cannot be read)"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("plain"), "plain"),
        (Unreadable(), UNREADABLE),
        (Interrupting(), UNREADABLE),
        (Odd(), "half ? of a pair"),
    ],
)
def test_any_exception_is_described(error: BaseException, text: str) -> None:
    assert described(error) == (type(error).__name__, text)


@pytest.mark.parametrize("error", [Unreadable, Interrupting])
def test_an_agent_that_raises_what_cannot_be_read_fails_with_its_class(
    error: type[Exception],
) -> None:
    @agent
    async def raises(ctx: Context) -> None:
        raise error

    result = TestRun(raises).execute()
    assert result.error is not None
    assert (result.error.type, result.error.message) == (error.__name__, UNREADABLE)


def raising(error: type[BaseException]) -> Callable[[], NoReturn]:
    def function() -> NoReturn:
        raise error

    return function


def raising_later(error: type[BaseException]) -> Callable[[], Any]:
    async def function() -> NoReturn:
        await asyncio.sleep(0)
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "error_type"),
    [
        (raising(Unreadable), "Unreadable"),
        (raising(Interrupting), "Interrupting"),
        (raising(Stopping), "RuntimeError"),
        (raising(asyncio.CancelledError), "CancelledError"),
        (raising_later(Unreadable), "Unreadable"),
        (raising_later(Interrupting), "Interrupting"),
        (raising_later(GeneratorExit), "GeneratorExit"),
    ],
)
async def test_a_step_reports_its_end_whatever_it_raises(
    function: Callable[[], Any], error_type: str
) -> None:
    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("odd", function, retries=Retries(1, delay_seconds=0))

    assert error_type in (await finish_of(steps))["error_type"]


async def test_a_step_whose_function_cancels_its_own_task_as_it_returns_reports_it() -> None:
    async def cancels() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return 1

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("odd", cancels)

    assert await finish_of(steps) == {
        "step": "odd",
        "error_type": "CancelledError",
        "message": "its function cancelled itself",
    }


async def test_a_step_whose_retries_break_reports_it() -> None:
    @agent
    async def steps(ctx: Context) -> None:
        retries = Retries(1)
        object.__setattr__(retries, "delay_seconds", "soon")
        await ctx.step("odd", raising_later(ValueError), retries=retries)

    assert (await finish_of(steps))["error_type"] == "TypeError"


async def finish_of(definition: Any) -> dict[str, str]:
    """What the agent's only step is said to have failed with."""
    host = ScriptedHost(definition)
    host.start()
    async with asyncio.timeout(5):
        while not host.of(Finish):  # noqa: ASYNC110
            await asyncio.sleep(0)
    host.copy.receive(Stop(grace_seconds=0.0))
    await host.ended()
    (finish,) = host.of(Finish)
    assert isinstance(finish, Finish)
    assert finish.failure is not None
    found: dict[str, str] = values.decode(finish.failure.data_json)
    return found


async def test_an_end_is_said_though_a_step_cancels_every_task_of_the_loop() -> None:
    began = asyncio.Event()

    async def cancels(test: asyncio.Task[Any]) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            for task in asyncio.all_tasks() - {test, asyncio.current_task()}:
                task.cancel()

    test = asyncio.current_task()
    assert test is not None

    @agent
    async def steps(ctx: Context) -> None:
        await ctx.step("odd", cancels, test)

    host = ScriptedHost(steps)
    host.start()
    await began.wait()
    host.copy.receive(Stop(grace_seconds=0.0))
    async with asyncio.timeout(5):
        assert (await host.ended()).outcome == "stopped"


def test_a_result_or_an_input_with_code_of_its_own_that_breaks_fails_the_run() -> None:
    @agent
    async def returns(ctx: Context) -> Breaks:
        return Breaks()

    @agent
    async def takes(ctx: Context, breaks: Breaks) -> None:
        pass

    result = TestRun(returns).execute()
    assert result.error is not None
    assert result.error.type == "ValueNotStorable"
    refused = TestRun(takes).execute({"name": "x"})
    assert refused.error is not None
    assert refused.error.type == "KeyError"


def test_a_failed_step_can_be_caught_though_its_error_cannot_be_read() -> None:
    @agent
    async def catches(ctx: Context) -> str:
        try:
            await ctx.step("odd", raising(Unreadable))
        except StepFailed as error:
            return str(error)
        return ""

    assert TestRun(catches).crash_everywhere().output == f"odd: Unreadable: {UNREADABLE}"


def test_the_log_says_where_an_agent_and_a_step_raised(caplog: pytest.LogCaptureFixture) -> None:
    @agent
    async def failing(ctx: Context) -> None:
        await ctx.step("flaky", fail)

    def fail() -> None:
        raise ValueError("no luck")

    caplog.set_level("WARNING")
    assert TestRun(failing).execute().error is not None
    step, whole = [one for one in caplog.records if one.name == "onbelay_agent"]
    said = {"action": "step_raised", "run_id": "run_test", "step": "main:step:flaky#1"}
    assert said.items() <= vars(step).items()
    assert {"action": "agent_raised", "agent": "failing"}.items() <= vars(whole).items()
    assert step.exc_info is not None
    assert "in fail\n" in "".join(traceback.format_tb(step.exc_info[2]))
