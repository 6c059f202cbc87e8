"""Calls that were sent and whose end nobody recorded; and giving a run back without losing any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from onbelay_agent.protocol import Begin, Begun, Ended, Finish, Parked, Recorded, Reopened, Suspend
from onbelay_server.domain.event import ToolCallFinished
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import ApprovalKind, Decision, RunState
from onbelay_server.ports.harness import CopyLost
from tests.engine_house import (
    FAILING,
    RETURNED,
    EngineHouse,
    begin,
    engine_house,
    intent,
    tool_intent,
)
from tests.patience import turns, until
from tests.played import PlayedCopy

ONCE = intent("s", request_json='{"once":true}')
ASK_AGAIN = Begin(stage=0, reopened=(Reopened(step_id="s", attempt=2, once=True),))


@pytest.fixture
async def house() -> AsyncIterator[EngineHouse]:
    async with engine_house() as house:
        yield house


async def next_copy(house: EngineHouse, run: Run, copy: PlayedCopy) -> PlayedCopy:
    """The copy after this one was lost."""
    count = len(house.harness.launched)
    copy.say(CopyLost(reason="gone"))
    await house.reached(run.id, RunState.QUEUED)
    house.clock.advance(121)
    return await house.copy(count + 1)


async def unknown(house: EngineHouse, asked: object = ONCE) -> tuple[Run, PlayedCopy]:
    """A run whose second copy asks again for a call that the first may have made."""
    run, copy = await house.begun()
    copy.say(begin(asked))  # type: ignore[arg-type]
    await copy.heard(Begun)
    second = await next_copy(house, run, copy)
    second.say(ASK_AGAIN)
    return run, second


# ---- steps ---------------------------------------------------------------------------------------


async def test_an_ordinary_step_runs_again(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(begin(intent("s")))
    await copy.heard(Begun)
    second = await next_copy(house, run, copy)
    second.say(Begin(stage=0, reopened=(Reopened(step_id="s", attempt=2, once=False),)))
    assert (await second.heard(Begun)).held == ()
    assert (await house.kinds(run.id))[-1] == "StepRestarted"
    second.say(Finish(step_id="s", stage=0, ok_json="1"), RETURNED)
    await house.reached(run.id, RunState.SUCCEEDED)


async def test_a_step_for_once_is_a_persons_question(house: EngineHouse) -> None:
    run, second = await unknown(house)
    assert (await second.heard(Begun)).held == ("s",)
    approval = await house.pending(run.id)
    assert (approval.kind, approval.step_id) == (ApprovalKind.UNKNOWN_OUTCOME, "s")
    assert "StepRestarted" not in await house.kinds(run.id)


async def test_it_happened_and_this_was_its_result(house: EngineHouse) -> None:
    run, second = await unknown(house)
    await house.decide(await house.pending(run.id), Decision.ANSWER, answer_json='{"id":7}')
    record = (await second.heard(Recorded)).record
    assert (record.step_id, record.ok_json) == ("s", '{"id":7}')


async def test_let_it_fail(house: EngineHouse) -> None:
    run, second = await unknown(house)
    await house.decide(await house.pending(run.id), Decision.REJECT, comment="it did not arrive")
    failure = (await second.heard(Recorded)).record.failure
    assert failure is not None
    assert (failure.type, failure.message) == ("StepFailed", "it did not arrive")


@pytest.mark.parametrize("is_parked", [True, False])
async def test_try_it_again(house: EngineHouse, is_parked: bool) -> None:
    run, second = await unknown(house)
    await second.heard(Begun)
    approval = await house.pending(run.id)
    if is_parked:
        second.say(Parked(stage=1, waiting=("s",)))
        await second.heard(Suspend)
        second.say(Ended(outcome="suspended"))
    await house.decide(approval, Decision.APPROVE)
    third = await house.copy(3)
    third.say(ASK_AGAIN)
    assert (await third.heard(Begun)).held == ()
    assert (await house.kinds(run.id))[-1] == "StepRestarted"
    third.say(Finish(step_id="s", stage=0, ok_json="1"), RETURNED)
    await house.reached(run.id, RunState.SUCCEEDED)
    # The permission was for one time.
    assert (await house.kinds(run.id)).count("StepRestarted") == 1


async def test_a_copy_lost_while_the_question_is_open_finds_it_open(house: EngineHouse) -> None:
    run, second = await unknown(house)
    await second.heard(Begun)
    approval = await house.pending(run.id)
    third = await next_copy(house, run, second)
    third.say(ASK_AGAIN)
    assert (await third.heard(Begun)).held == ("s",)
    assert (await house.pending(run.id)).id == approval.id
    assert (await house.kinds(run.id)).count("ApprovalRequested") == 1


# ---- tools ---------------------------------------------------------------------------------------


async def test_a_tool_is_called_once_its_intent_is_recorded(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(begin(tool_intent("s", "write")))
    await until(lambda: house.tools.calls)
    assert (await house.kinds(run.id))[-1] == "ToolCallStarted"
    house.tools.gate.set()
    record = (await copy.heard(Recorded)).record
    assert (record.step_id, record.ok_json) == ("s", '"done"')
    assert house.tools.calls[0][:2] == ("write", '{"n":1}')


@pytest.mark.parametrize(
    ("problem", "type"), [(FAILING, "ToolFailed"), (RuntimeError("secret text"), "ToolFailed")]
)
async def test_how_a_tool_fails(house: EngineHouse, problem: Exception, type: str) -> None:
    _, copy = await house.begun()
    house.tools.problem = problem
    house.tools.gate.set()
    copy.say(begin(tool_intent("s", "look")))
    failure = (await copy.heard(Recorded)).record.failure
    assert failure is not None
    assert failure.type == type
    assert "secret text" not in failure.message


async def test_a_tool_the_agent_may_not_call_is_refused(house: EngineHouse) -> None:
    _, copy = await house.begun()
    copy.say(begin(tool_intent("s", "launch_missiles")))
    failure = (await copy.heard(Recorded)).record.failure
    assert failure is not None
    assert failure.type == "ToolDenied"
    assert house.tools.calls == []


@pytest.mark.parametrize("tool", ["look", "upsert"])
async def test_a_harmless_tool_is_called_again_with_the_same_key(
    house: EngineHouse, tool: str
) -> None:
    _, second = await unknown(house, tool_intent("s", tool))
    await until(lambda: len(house.tools.calls) == 2)
    assert house.tools.calls[0] == house.tools.calls[1]
    house.tools.gate.set()
    assert (await second.heard(Recorded)).record.ok_json == '"done"'


async def test_a_tool_that_writes_is_a_persons_question(house: EngineHouse) -> None:
    run, second = await unknown(house, tool_intent("s", "write"))
    assert (await second.heard(Begun)).held == ("s",)
    approval = await house.pending(run.id)
    assert approval.kind is ApprovalKind.UNKNOWN_OUTCOME
    assert len(house.tools.calls) == 1
    await house.decide(approval, Decision.APPROVE)
    third = await house.copy(3)
    third.say(ASK_AGAIN)
    house.tools.gate.set()
    assert (await third.heard(Recorded)).record.ok_json == '"done"'
    assert house.tools.calls[0] == house.tools.calls[1]
    ends = [e for e in await house.log(run.id) if isinstance(e.payload, ToolCallFinished)]
    assert len(ends) == 1


async def test_another_runs_call_of_the_same_step_has_another_key(house: EngineHouse) -> None:
    for _ in range(2):
        _, copy = await house.begun()
        copy.say(begin(tool_intent("s", "look")))
        await copy.heard(Begun)
    await until(lambda: len(house.tools.calls) == 2)
    assert house.tools.calls[0][2] != house.tools.calls[1][2]


# ---- draining ------------------------------------------------------------------------------------


async def test_a_drain_gives_runs_back_and_it_is_no_attempt(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(begin(intent("s")))
    await copy.heard(Begun)
    await house.engine.drain()
    after = await house.run(run.id)
    assert (after.state, after.owner, after.attempt) == (RunState.QUEUED, None, 0)
    assert copy.is_killed
    assert (await house.log(run.id))[-1].epoch == 1


@pytest.mark.parametrize("is_tool", [True, False])
async def test_a_drain_waits_for_what_may_not_be_repeated(
    house: EngineHouse, is_tool: bool
) -> None:
    run, copy = await house.begun()
    copy.say(begin(tool_intent("s", "write") if is_tool else ONCE))
    await copy.heard(Begun)
    drain = asyncio.create_task(house.engine.drain())
    await house.looked("events")
    assert not copy.is_killed
    house.tools.gate.set()
    if not is_tool:
        copy.say(Finish(step_id="s", stage=0, ok_json='"done"'))
    await drain
    kinds = await house.kinds(run.id)
    assert kinds[-2:] == ["ToolCallFinished" if is_tool else "StepFinished", "StateChanged"]
    assert (await house.run(run.id)).state is RunState.QUEUED


async def test_nothing_is_claimed_in_a_drain(house: EngineHouse) -> None:
    await house.engine.drain()
    run = await house.start()
    await turns()
    assert (await house.run(run.id)).state is RunState.QUEUED
    assert house.harness.launched == []
