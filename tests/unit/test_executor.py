"""One run in one epoch: what is written, what the copy is told, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from onbelay_agent.protocol import (
    Begin,
    Begun,
    Cancel,
    Emit,
    Emitted,
    Ended,
    Failure,
    Finish,
    Parked,
    Recorded,
    Suspend,
)
from onbelay_server.domain.state import ApprovalState, Decision, FailureReason, RunState
from onbelay_server.ports.harness import CopyLost
from tests.engine_house import RETURNED, EngineHouse, approval_intent, begin, engine_house, intent
from tests.patience import until

STOPPED, SUCCEEDED, FAILED = RunState.STOPPED, RunState.SUCCEEDED, RunState.FAILED
PARKED = {
    "approval": (approval_intent("a"), RunState.WAITING_FOR_APPROVAL),
    "question": (
        intent("a", "QUESTION", '{"question":"Which?","schema":{}}'),
        RunState.WAITING_FOR_INPUT,
    ),
    "timer": (intent("a", "TIMER", '{"due_us":1900000000000000}'), RunState.BLOCKED),
}


@pytest.fixture
async def house() -> AsyncIterator[EngineHouse]:
    async with engine_house() as house:
        yield house


# ---- begin, finish, end --------------------------------------------------------------------------


async def test_a_step_is_recorded_before_it_begins_and_before_it_is_released(
    house: EngineHouse,
) -> None:
    run, copy = await house.begun()
    assert (copy.start.run_id, copy.start.attempt, copy.start.journal) == (run.id, 1, ())
    copy.say(begin(intent("s")))
    assert (await copy.heard(Begun)).held == ()
    assert (await house.kinds(run.id))[-1] == "StepStarted"
    copy.say(Finish(step_id="s", stage=0, ok_json="7"))
    record = (await copy.heard(Recorded)).record
    assert (record.step_id, record.ok_json, record.stage) == ("s", "7", 0)
    copy.say(RETURNED)
    after = await house.reached(run.id, SUCCEEDED)
    assert (after.output_json, after.owner, after.lease_until_us) == ('"ok"', None, None)
    kinds = await house.kinds(run.id)
    assert kinds[2:] == ["StepStarted", "StepFinished", "StateChanged", "RunFinished"]
    await until(lambda: copy.is_killed)


async def test_what_is_said_together_is_one_unit_in_its_order(house: EngineHouse) -> None:
    run, copy = await house.begun()
    said = Emit(place="main:emit#1", kind="text", text="one")
    more = Emit(place="main:emit#2", kind="log", text="two", level="WARNING")
    copy.say(
        Emitted(emits=(said,)),
        Begin(stage=0, emits=(more,), intents=(intent("s"), intent("t"))),
    )
    await copy.heard(Begun)
    assert (await house.kinds(run.id))[2:] == [
        "TextDelta",
        "LogWritten",
        "StepStarted",
        "StepStarted",
    ]
    first_us = (await house.log(run.id))[-1].time_us
    house.clock.advance(1)
    copy.say(Finish(step_id="s", stage=0, ok_json="1"), Cancel(step_ids=("t",)), RETURNED)
    await house.reached(run.id, SUCCEEDED)
    assert (await house.kinds(run.id))[6:] == [
        "StepFinished",
        "StepCancelled",
        "StateChanged",
        "RunFinished",
    ]
    times = [event.time_us for event in (await house.log(run.id))[2:]]
    assert times == [first_us] * 4 + [first_us + 1_000_000] * 4


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (Ended(outcome="raised", error_type="ValueError", message="x"), FailureReason.AGENT_ERROR),
        (Ended(outcome="raised", error_type="InvalidInput"), FailureReason.INVALID_INPUT),
        (Ended(outcome="stuck", message="waits for nothing"), FailureReason.STUCK),
        (CopyLost(reason="no such program", is_spawn=True), FailureReason.SPAWN_FAILED),
    ],
)
async def test_how_a_run_fails(
    house: EngineHouse, end: Ended | CopyLost, reason: FailureReason
) -> None:
    run, copy = await house.begun()
    copy.say(begin(approval_intent("a")))
    await copy.heard(Begun)
    copy.say(end)
    after = await house.reached(run.id, FAILED)
    assert after.error is not None
    assert after.error.reason is reason
    kinds = await house.kinds(run.id)
    assert kinds[-3:] == ["ApprovalVoided", "StateChanged", "RunFinished"]
    assert await house.store.waits([run.id]) == {run.id: []}


async def test_an_agent_this_server_cannot_run_fails_at_once(house: EngineHouse) -> None:
    house.harness.objection = "its code is not registered"
    run = await house.start()
    after = await house.reached(run.id, FAILED)
    assert after.error is not None
    assert after.error.reason is FailureReason.AGENT_NOT_FOUND
    assert not house.harness.launched


async def test_a_divergence_holds_the_run(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(Ended(outcome="diverged", message="main:step:s#1 is new"))
    after = await house.reached(run.id, RunState.PAUSED)
    assert after.error is not None
    assert (after.error.reason, after.owner) == (FailureReason.DIVERGED, None)
    assert "main:step:s#1" in after.error.message


async def test_words_that_cannot_be_stored_end_the_run(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(Emitted(emits=(Emit(place="main:emit#1", kind="text", text="\ud800"),)))
    after = await house.reached(run.id, FAILED)
    assert after.error is not None
    assert after.error.reason is FailureReason.HARNESS_ERROR


async def test_a_result_too_large_for_the_log_is_kept_as_a_file(house: EngineHouse) -> None:
    run, copy = await house.begun()
    sha256 = await copy.keep(b'"large"')
    copy.say(begin(intent("s")))
    await copy.heard(Begun)
    copy.say(Finish(step_id="s", stage=0, content_sha256=sha256))
    assert (await copy.heard(Recorded)).record.content_sha256 == sha256
    # A later copy finds it too.
    copy.say(CopyLost(reason="killed"))
    await house.reached(run.id, RunState.QUEUED)
    house.clock.advance(1)
    assert (await house.copy(2)).start.journal[-1].content_sha256 == sha256


# ---- waiting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PARKED)
async def test_a_wait_gives_the_worker_back(house: EngineHouse, kind: str) -> None:
    asked, state = PARKED[kind]
    run, copy = await house.begun()
    copy.say(begin(asked), Parked(stage=1, waiting=("a",)))
    await copy.heard(Suspend)
    after = await house.run(run.id)
    assert (after.state, after.owner, after.attempt, after.epoch) == (state, None, 0, 1)
    assert [wait.step_id for wait in (await house.store.waits([run.id]))[run.id]] == ["a"]
    copy.say(Ended(outcome="suspended"))
    await until(lambda: copy.is_killed)
    assert (await house.run(run.id)).state is state


async def test_a_decision_makes_a_parked_run_go_on_in_a_new_copy(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(begin(intent("s"), approval_intent("a")))
    await copy.heard(Begun)
    copy.say(Finish(step_id="s", stage=0, ok_json="1"), Parked(stage=1, waiting=("a",)))
    await copy.heard(Suspend)
    copy.say(Ended(outcome="suspended"))
    await house.decide(await house.pending(run.id), Decision.APPROVE, comment="fine")
    second = await house.copy(2)
    records = [(one.type, one.step_id) for one in second.start.journal]
    assert records == [
        ("started", "s"),
        ("started", "a"),
        ("finished", "s"),
        ("finished", "a"),
    ]
    assert second.start.journal[-1].ok_json == '{"by": "user:ada", "comment": "fine"}'
    after = await house.run(run.id)
    assert (after.state, after.epoch, after.attempt) == (RunState.RUNNING, 2, 1)


async def test_a_decision_that_comes_before_the_park_is_told_to_the_same_copy(
    house: EngineHouse,
) -> None:
    run, copy = await house.begun()
    copy.say(begin(approval_intent("a")))
    await house.decide(await house.pending(run.id), Decision.REJECT, comment="no")
    failure = (await copy.heard(Recorded)).record.failure
    assert failure is not None
    assert (failure.type, failure.message) == ("Rejected", "no")
    copy.say(Parked(stage=1, waiting=("a",)), RETURNED)
    await house.reached(run.id, SUCCEEDED)
    assert not any(isinstance(frame, Suspend) for frame in copy.told)


async def test_a_near_timer_is_waited_for_with_the_copy_kept(house: EngineHouse) -> None:
    run, copy = await house.begun()
    due_us = house.clock.now_us() + 500_000
    copy.say(begin(intent("t", "TIMER", f'{{"due_us":{due_us}}}')), Parked(stage=1, waiting=("t",)))
    await copy.heard(Begun)
    house.clock.advance(0.6)
    record = (await copy.heard(Recorded)).record
    assert (record.step_id, record.ok_json) == ("t", "null")
    assert (await house.run(run.id)).epoch == 1


async def test_a_far_timer_and_an_expiry_wake_the_run(house: EngineHouse) -> None:
    run, copy = await house.begun()
    due_us = house.clock.now_us() + 60_000_000
    copy.say(begin(intent("t", "TIMER", f'{{"due_us":{due_us}}}'), approval_intent("a")))
    copy.say(Parked(stage=1, waiting=("t", "a")))
    await copy.heard(Suspend)
    copy.say(Ended(outcome="suspended"))
    house.clock.advance(61)
    second = await house.copy(2)
    assert [one.step_id for one in second.start.journal if one.type == "finished"] == ["t"]
    second.say(Parked(stage=1, waiting=("a",)))
    await second.heard(Suspend)
    second.say(Ended(outcome="suspended"))
    approval = await house.pending(run.id)
    house.clock.advance(3600)
    last = (await house.copy(3)).start.journal[-1]
    assert last.failure == Failure(type="Expired", message="nobody decided in time")
    expired = await house.store.approval(approval.id)
    assert expired is not None
    assert expired.state is ApprovalState.EXPIRED


async def test_a_copy_that_will_not_unwind_is_killed_in_time(house: EngineHouse) -> None:
    _, copy = await house.begun()
    copy.say(begin(approval_intent("a")), Parked(stage=1, waiting=("a",)))
    await copy.heard(Suspend)
    house.clock.advance(4)
    await house.looked("events")
    assert not copy.is_killed
    house.clock.advance(2)
    await until(lambda: copy.is_killed)


async def test_an_approval_nobody_waits_for_any_more_is_voided(house: EngineHouse) -> None:
    run, copy = await house.begun()
    copy.say(begin(approval_intent("a")))
    approval = await house.pending(run.id)
    copy.say(Cancel(step_ids=("a",)))
    copy.say(RETURNED)
    await house.reached(run.id, SUCCEEDED)
    voided = await house.store.approval(approval.id)
    assert voided is not None
    assert voided.state is ApprovalState.VOIDED
    assert (await house.kinds(run.id)).count("ApprovalVoided") == 1


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_what_is_asked_and_over_in_one_unit_is_not_left_open(
    house: EngineHouse, is_cancelled: bool
) -> None:
    run, copy = await house.begun()
    cancels = [Cancel(step_ids=("a",))] if is_cancelled else []
    copy.say(begin(approval_intent("a")), *cancels, RETURNED)
    await house.reached(run.id, SUCCEEDED)
    kinds = await house.kinds(run.id)
    assert (kinds.count("ApprovalRequested"), kinds.count("ApprovalVoided")) == (1, 1)
    assert await house.store.waits([run.id]) == {run.id: []}
