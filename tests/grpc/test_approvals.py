"""Approvals over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from onbelay.v1 import approval_pb2, run_pb2
from onbelay.v1 import approval_request_pb2 as pb
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.state import ApprovalKind, RunState
from tests.grpc.resource_server import Desk, desk
from tests.resources import BEN

Code = grpc.StatusCode
APPROVE = approval_pb2.APPROVAL_DECISION_APPROVE
REJECT = approval_pb2.APPROVAL_DECISION_REJECT
ANSWER = approval_pb2.APPROVAL_DECISION_ANSWER


@pytest.fixture
async def d() -> AsyncIterator[Desk]:
    async with desk() as found:
        yield found


async def asked(d: Desk, **more: Any) -> str:
    """The digest of a new pending approval `apr_1`."""
    run = await d.house.run(state=RunState.WAITING_FOR_APPROVAL)
    return (await d.house.approval(run, **more)).body_sha256


def decision(number: Any, **more: Any) -> pb.DecideApprovalRequest:
    usual: dict[str, Any] = {"approval_id": "apr_1", "decision": number}
    return pb.DecideApprovalRequest(**(usual | more))


async def test_an_approval_is_shown_decided_and_decided_again(d: Desk) -> None:
    digest = await asked(d)
    shown = await d.call(d.runs.GetApproval, pb.GetApprovalRequest(approval_id="apr_1"))
    assert shown.approval.can_decide
    assert shown.approval.state == approval_pb2.APPROVAL_STATE_PENDING
    assert shown.approval.title == "Apply the rules?"
    assert shown.approval.summary == "All of them."
    assert shown.approval.body_sha256 == digest
    assert shown.approval.requested_by == "user:ada"
    assert shown.server_time.seconds
    assert shown.approval.expire_time.seconds > shown.server_time.seconds
    yes = decision(APPROVE, body_sha256=digest, comment="fine", request_id="r")
    first = await d.call(d.runs.DecideApproval, yes)
    assert first.approval.state == approval_pb2.APPROVAL_STATE_APPROVED
    assert (first.approval.decided_by, first.approval.comment) == ("user:ada", "fine")
    assert (first.approval.can_decide, first.approval.cannot_decide_reason) == (
        False,
        "it is approved",
    )
    for request_id in ("r", "", "other"):
        yes.request_id = request_id
        assert (await d.call(d.runs.DecideApproval, yes)).approval == first.approval
    refused = await d.refused(d.runs.DecideApproval, decision(REJECT))
    assert (refused.code, refused.reason) == (Code.FAILED_PRECONDITION, "ALREADY_DECIDED")
    assert refused.metadata["decision"] == "APPROVE"
    assert refused.metadata["decided_by"] == "user:ada"


@pytest.mark.parametrize(
    ("more", "code", "reason", "fields"),
    [
        ({"decision": 0}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["decision"]),
        ({"decision": 17}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["decision"]),
        ({"body_sha256": ""}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["body_sha256"]),
        ({"body_sha256": "0" * 64}, Code.FAILED_PRECONDITION, "HASH_MISMATCH", []),
        ({"body_sha256": "A" * 64}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["body_sha256"]),
        ({"decision": ANSWER}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["answer"]),
        (
            {"decision": ANSWER, "answer_json": "{}"},
            Code.FAILED_PRECONDITION,
            "DECISION_NOT_ALLOWED",
            [],
        ),
        ({"new_limit": 5}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["new_limit"]),
        (
            {"scope": approval_pb2.APPROVAL_SCOPE_SESSION},
            Code.FAILED_PRECONDITION,
            "SCOPE_TOO_WIDE",
            [],
        ),
        ({"comment": "x" * 4001}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["comment"]),
        ({"approval_id": "apr_2"}, Code.NOT_FOUND, "NOT_FOUND", []),
    ],
)
async def test_hostile_decisions(
    d: Desk, more: dict[str, Any], code: Code, reason: str, fields: list[str]
) -> None:
    digest = await asked(d)
    given = {"body_sha256": digest, **more}
    request = decision(given.pop("decision", APPROVE), **given)
    refused = await d.refused(d.runs.DecideApproval, request)
    assert (refused.code, refused.reason) == (code, reason)
    assert refused.fields == fields
    run = await d.house.store.run("run_1")
    assert run is not None
    assert (run.state, run.last_sequence) == (RunState.WAITING_FOR_APPROVAL, 1)


async def test_who_may_decide(d: Desk) -> None:
    digest = await asked(d)
    request = decision(APPROVE, body_sha256=digest)
    unknown = decision(APPROVE, body_sha256=digest, approval_id="apr_2")
    for who in ("ben", "rival"):
        refused = await d.refused(d.runs.DecideApproval, request, who)
        assert refused == await d.refused(d.runs.DecideApproval, unknown, who)
        assert refused.code is Code.NOT_FOUND
    refused = await d.refused(d.runs.DecideApproval, request, "robot")
    assert (refused.code, refused.reason) == (Code.PERMISSION_DENIED, "NOT_A_PERSON")
    await d.call(d.runs.DecideApproval, request, "admin")


@pytest.mark.parametrize(
    ("form", "kept"),
    [
        ({"answer_json": '{"n": 12345678901234567890}'}, '{"n": 12345678901234567890}'),
        ({"answer": Value(struct_value=Struct(fields={"n": Value(number_value=7)}))}, '{"n":7}'),
    ],
)
async def test_answers_in_both_forms(d: Desk, form: dict[str, Any], kept: str) -> None:
    schema = '{"type":"object","properties":{"n":{"type":"integer"}}}'
    await asked(d, kind=ApprovalKind.QUESTION, schema=schema)
    reply = await d.call(d.runs.DecideApproval, decision(ANSWER, **form))
    assert reply.approval.answer_json == kept


@pytest.mark.parametrize(
    ("form", "reason", "field"),
    [
        ({"answer_json": '{"n": "7"}'}, "ANSWER_MISMATCH", "answer_json/n"),
        ({"answer_json": '{"n": 7'}, "INVALID_JSON", "answer_json"),
        ({"answer_json": '{"n": 7, "n": 8}'}, "INVALID_JSON", "answer_json"),
        ({"answer_json": '{"n": NaN}'}, "INVALID_JSON", "answer_json"),
        ({"answer_json": " " * 65_537}, "INVALID_FIELD", "answer_json"),
        ({"answer": Value(number_value=float("nan"))}, "INVALID_FIELD", "answer"),
        ({"answer": Value(number_value=2.0**60)}, "INVALID_FIELD", "answer"),
        ({"answer": Value()}, "INVALID_FIELD", "answer"),
    ],
)
async def test_hostile_answers(d: Desk, form: dict[str, Any], reason: str, field: str) -> None:
    schema = '{"type":"object","properties":{"n":{"type":"integer"}}}'
    await asked(d, kind=ApprovalKind.QUESTION, schema=schema)
    refused = await d.refused(d.runs.DecideApproval, decision(ANSWER, **form))
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, reason)
    assert refused.fields == [field]


# ---- what people are shown -----------------------------------------------------------------------


async def test_nothing_in_a_text_is_hidden_from_who_reads_it(d: Desk) -> None:
    title = "pay 5\u202e\x1b[2K to \u200bBob\r\n"
    body = "line\n\tindented\x1b]0;owned\x07 \u2066x\u2069" + " " * 10_000 + "end \ue000"
    evidence = '{"note":"a\u202eb","n":1}'
    run = await d.house.run(state=RunState.WAITING_FOR_APPROVAL)
    approval = await d.house.approval(run, title=title, body=body)
    await d.house.store.write(
        Reads(approvals=["apr_1"]),
        lambda rows, now_us: Change(result=None, put=[replace(approval, evidence_json=evidence)]),
    )
    found = (await d.call(d.runs.GetApproval, pb.GetApprovalRequest(approval_id="apr_1"))).approval
    assert found.title == r"pay 5\u{202E}\u{1B}[2K to \u{200B}Bob\u{D}\u{A}"
    assert found.summary == (
        "line\n\tindented"
        r"\u{1B}]0;owned\u{7} \u{2066}x\u{2069}\u{20}×10000end \u{E000}"
    )
    assert found.evidence == r'{"note":"a\u202eb","n":1}'
    # The digest is of the original: what is approved is what the agent asked.
    assert found.body_sha256 == approval.body_sha256


async def test_lists_are_short_unless_all_is_asked_for(d: Desk) -> None:
    run = await d.house.run()
    for number in range(5):
        await d.house.approval(run, f"apr_{number}", approvers=(BEN.id,) if number == 2 else ())
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListApprovalsRequest(page_size=2, page_token=token)
        page = await d.call(d.runs.ListApprovals, request)
        seen += [one.id for one in page.approvals]
        assert all(not one.summary for one in page.approvals)
        assert page.server_time.seconds
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"apr_{number}" for number in (4, 3, 2, 1, 0)]
    mine = pb.ListApprovalsRequest(
        decidable_only=True,
        view=run_pb2.RUN_VIEW_FULL,
        run_id="run_1",
        agent="hello",
        kinds=[approval_pb2.APPROVAL_KIND_PLAN],
        states=[approval_pb2.APPROVAL_STATE_PENDING],
    )
    page = await d.call(d.runs.ListApprovals, mine, "ben")
    assert [(one.id, one.summary) for one in page.approvals] == [("apr_2", "All of them.")]
    assert not (await d.call(d.runs.ListApprovals, mine, "rival")).approvals
    bad = pb.ListApprovalsRequest(states=[approval_pb2.APPROVAL_STATE_UNSPECIFIED])
    assert (await d.refused(d.runs.ListApprovals, bad)).fields == ["states[0]"]


async def test_full_pages_end_early_and_go_on(d: Desk) -> None:
    run = await d.house.run()
    for number in range(5):
        await d.house.approval(run, f"apr_{number}", body="x" * 400_000)
    seen: list[str] = []
    token = ""
    pages = 0
    while True:
        request = pb.ListApprovalsRequest(view=run_pb2.RUN_VIEW_FULL, page_token=token)
        page = await d.call(d.runs.ListApprovals, request)
        pages += 1
        seen += [one.id for one in page.approvals]
        token = page.next_page_token
        if not token:
            break
    assert pages == 3
    assert seen == [f"apr_{number}" for number in (4, 3, 2, 1, 0)]
