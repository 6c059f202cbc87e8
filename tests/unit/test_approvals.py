"""Deciding, seeing and listing approvals."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.app.approvals import ApprovalView
from onbelay_server.app.idempotency import Idempotency
from onbelay_server.domain.approval import Approval, Verdict
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.error import (
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from onbelay_server.domain.event import ApprovalDecided, StateChanged
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.domain.request import RequestKey
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import ApprovalKind, ApprovalState, Decision, RunState
from onbelay_server.domain.stopping import StopOrder, stop_tree
from onbelay_server.ports.store import ApprovalFilter
from tests.resources import ADA, ADMIN, BEN, RIVAL, ROBOT, House, person

EVERYTHING = ApprovalFilter()
OLGA = person("olga")
"""The owner of the agent that asks."""


@pytest.fixture
def house() -> House:
    return House()


async def asked(house: House, **more: object) -> tuple[Run, Approval]:
    run = await house.run(state=RunState.WAITING_FOR_APPROVAL)
    return run, await house.approval(run, **more)  # type: ignore[arg-type]


def yes(approval: Approval, comment: str = "") -> Verdict:
    return Verdict(decision=Decision.APPROVE, body_sha256=approval.body_sha256, comment=comment)


async def decide(
    house: House,
    verdict: Verdict,
    *,
    caller: Principal = ADA,
    approval_id: str = "apr_1",
    idempotency: Idempotency | None = None,
) -> ApprovalView:
    return await house.approvals.decide(caller, approval_id, verdict, idempotency)


async def refusal(house: House, verdict: Verdict, **more: object) -> DomainError:
    with pytest.raises(DomainError) as refused:
        await decide(house, verdict, **more)  # type: ignore[arg-type]
    return refused.value


async def payloads(house: House, run_id: str = "run_1") -> list[object]:
    events = await house.store.events(run_id, after=0, limit=100, max_bytes=1_000_000)
    return [ProtoEventCodec().decode(event.body).payload for event in events]


async def test_a_decision_is_recorded_frees_the_wait_and_queues_the_run(house: House) -> None:
    _, approval = await asked(house)
    view = await decide(house, yes(approval, "go"))
    assert view.approval.state is ApprovalState.APPROVED
    assert (view.approval.decided_by, view.approval.comment) == (ADA.id, "go")
    run = await house.store.run("run_1")
    assert run is not None
    assert run.state is RunState.QUEUED
    assert await house.store.waits(["run_1"]) in ({}, {"run_1": []})
    _, said, moved = await payloads(house)
    assert isinstance(said, ApprovalDecided)
    assert (said.decision, said.decided_by, said.comment) == (Decision.APPROVE, ADA.id, "go")
    assert isinstance(moved, StateChanged)


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.PAUSED])
async def test_a_run_that_does_not_wait_only_learns_of_it(house: House, state: RunState) -> None:
    run = await house.run(state=state)
    approval = await house.approval(run)
    await decide(house, yes(approval))
    after = await house.store.run("run_1")
    assert after is not None
    assert after.state is state
    assert len(await payloads(house)) == 2


async def test_saying_the_same_again_changes_nothing(house: House) -> None:
    _, approval = await asked(house)
    first = await decide(house, yes(approval))
    again = await decide(house, yes(approval))
    assert again.approval == first.approval
    assert len(await payloads(house)) == 3


async def test_of_racing_decisions_the_first_wins(house: House) -> None:
    _, approval = await asked(house)
    no = Verdict(decision=Decision.REJECT, comment="no")
    racing = [decide(house, verdict) for verdict in [yes(approval), no] * 20]
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(one, ApprovalView) for one in outcomes) == 20
    lost = [one for one in outcomes if isinstance(one, FailedPrecondition)]
    assert {one.reason for one in lost} == {"ALREADY_DECIDED"}
    assert {one.metadata["decision"] for one in lost} == {"APPROVE"}
    assert sum(isinstance(one, ApprovalDecided) for one in await payloads(house)) == 1


async def test_a_request_id_counts_once(house: House) -> None:
    _, approval = await asked(house)
    key = Idempotency(RequestKey(ADA.tenant, ADA.id, "decide", "r1"), "body")
    first = await decide(house, yes(approval), idempotency=key)
    assert (await decide(house, yes(approval), idempotency=key)).approval == first.approval
    other = Idempotency(key.key, "other body")
    assert (await refusal(house, yes(approval), idempotency=other)).reason == "REQUEST_ID_REUSED"


# ---- what is refused -----------------------------------------------------------------------------


async def test_another_hash_is_not_an_approval(house: House) -> None:
    _, approval = await asked(house)
    wrong = ("0" if approval.body_sha256[0] != "0" else "1") + approval.body_sha256[1:]
    refused = await refusal(house, replace(yes(approval), body_sha256=wrong))
    assert refused.reason == "HASH_MISMATCH"
    assert len(await payloads(house)) == 1


async def test_expiry_is_judged_by_the_time_of_the_commit(house: House) -> None:
    _, approval = await asked(house, expires_in_us=1_000)
    house.clock.advance(0.001)
    assert (await refusal(house, yes(approval))).reason == "APPROVAL_EXPIRED"
    view = await house.approvals.get(ADA, "apr_1")
    assert view.obstacle == "it has expired"


async def test_who_may_not_see_and_who_may_not_decide(house: House) -> None:
    _, approval = await asked(house)
    assert isinstance(await refusal(house, yes(approval), caller=BEN), NotFound)
    assert isinstance(await refusal(house, yes(approval), caller=RIVAL), NotFound)
    assert isinstance(await refusal(house, yes(approval), approval_id="apr_2"), NotFound)
    denied = await refusal(house, yes(approval), caller=OLGA)
    assert (type(denied), denied.reason) == (PermissionDenied, "NOT_AN_APPROVER")
    admin_key = replace(ROBOT, scopes=frozenset(Scope))
    denied = await refusal(house, yes(approval), caller=admin_key)
    assert (type(denied), denied.reason) == (PermissionDenied, "NOT_A_PERSON")
    assert (await decide(house, yes(approval), caller=ADMIN)).approval.decided_by == ADMIN.id


async def test_listed_approvers_decide_and_the_starter_does_not(house: House) -> None:
    _, approval = await asked(house, approvers=(BEN.id,))
    assert (await refusal(house, yes(approval))).reason == "NOT_AN_APPROVER"
    assert (await refusal(house, yes(approval), caller=ADMIN)).reason == "NOT_AN_APPROVER"
    assert (await house.approvals.get(BEN, "apr_1")).obstacle == ""
    await decide(house, yes(approval), caller=BEN)


@pytest.mark.parametrize("owner", [None, "worker"])
async def test_a_stopped_run_takes_no_decisions(house: House, owner: str | None) -> None:
    state = RunState.RUNNING if owner else RunState.WAITING_FOR_APPROVAL
    run = await house.run(state=state)
    approval = await house.approval(run)

    def stop(rows: Rows, now_us: int) -> Change[Run]:
        current = rows.run(run.id)
        assert current is not None
        order = StopOrder(
            run_id=run.id, requested_by=ADA.id, reason="enough", grace_us=1, kill_us=1
        )
        return stop_tree(rows, replace(current, owner=owner), order, now_us)

    await house.store.write(Reads(runs=[run.id], trees=[run.id]), stop)
    refused = await refusal(house, yes(approval))
    assert refused.reason == "RUN_NOT_ACTIVE"
    assert (await house.approvals.get(ADA, "apr_1")).approval.state is ApprovalState.VOIDED


async def test_of_a_stop_and_an_approval_at_once_exactly_one_counts(house: House) -> None:
    run, approval = await asked(house)

    def stop(rows: Rows, now_us: int) -> Change[Run]:
        current = rows.run(run.id)
        assert current is not None
        order = StopOrder(run_id=run.id, requested_by=ADA.id, reason="", grace_us=1, kill_us=1)
        return stop_tree(rows, current, order, now_us)

    stopped, decided = await asyncio.gather(
        house.store.write(Reads(runs=[run.id], trees=[run.id]), stop),
        decide(house, yes(approval)),
        return_exceptions=True,
    )
    assert not isinstance(stopped, BaseException)
    final = (await house.approvals.get(ADA, "apr_1")).approval.state
    if isinstance(decided, BaseException):
        assert final is ApprovalState.VOIDED
    else:
        assert final is ApprovalState.APPROVED


# ---- questions -----------------------------------------------------------------------------------

SCHEMA = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'


def answer(text: str) -> Verdict:
    return Verdict(decision=Decision.ANSWER, answer_json=text)


async def test_an_answer_is_kept_as_it_was_given(house: House) -> None:
    await asked(house, kind=ApprovalKind.QUESTION, schema=SCHEMA)
    view = await decide(house, answer('{"n": 9007199254740993}'))
    assert view.approval.state is ApprovalState.ANSWERED
    assert view.approval.answer_json == '{"n": 9007199254740993}'


@pytest.mark.parametrize("text", ['{"n":"1"}', "{}", "[]", "null"])
async def test_an_answer_outside_its_schema_is_refused(house: House, text: str) -> None:
    await asked(house, kind=ApprovalKind.QUESTION, schema=SCHEMA)
    refused = await refusal(house, answer(text))
    assert isinstance(refused, InvalidArgument)
    assert refused.reason == "ANSWER_MISMATCH"
    assert refused.fields[0].field.startswith("answer_json")


# ---- lists ---------------------------------------------------------------------------------------


async def test_lists_show_what_one_sees_and_may_decide(house: House) -> None:
    run = await house.run("run_1")
    await house.approval(run, "apr_1")
    await house.approval(run, "apr_2", approvers=(BEN.id,))
    other = await house.run("run_2", starter=BEN)
    await house.approval(other, "apr_3")

    async def ids(caller: Principal, *, decidable_only: bool = False) -> list[str]:
        page = await house.approvals.list_approvals(
            caller, EVERYTHING, decidable_only=decidable_only, after=None, limit=10
        )
        return [view.approval.id for view in page.approvals]

    assert await ids(ADA) == ["apr_2", "apr_1"]
    assert await ids(BEN) == ["apr_3", "apr_2"]
    assert await ids(ADMIN) == ["apr_3", "apr_2", "apr_1"]
    assert await ids(RIVAL) == []
    assert await ids(ADA, decidable_only=True) == ["apr_1"]
    assert await ids(BEN, decidable_only=True) == ["apr_3", "apr_2"]
    assert await ids(ADMIN, decidable_only=True) == ["apr_3", "apr_1"]
    assert await ids(ROBOT, decidable_only=True) == []


async def test_pages_hold_every_approval_once(house: House) -> None:
    run = await house.run("run_1")
    for number in range(25):
        await house.approval(run, f"apr_{number:02}", approvers=(BEN.id,) if number % 2 else ())
    for decidable_only, wanted in ((False, 25), (True, 13)):
        seen: list[str] = []
        after = None
        for _ in range(20):
            page = await house.approvals.list_approvals(
                ADA, EVERYTHING, decidable_only=decidable_only, after=after, limit=4
            )
            seen += [view.approval.id for view in page.approvals]
            after = page.after
            if after is None:
                break
        assert len(seen) == len(set(seen)) == wanted
        assert seen == sorted(seen, reverse=True)
