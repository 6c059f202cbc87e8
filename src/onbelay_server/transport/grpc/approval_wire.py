"""Approvals between the wire and the domain."""

from __future__ import annotations

from onbelay.v1 import approval_pb2, approval_request_pb2
from onbelay_server.app.approvals import ApprovalView
from onbelay_server.domain.approval import ApprovedCall, Verdict
from onbelay_server.domain.error import FailedPrecondition, InvalidArgument
from onbelay_server.domain.state import ApprovalKind, ApprovalState, Decision
from onbelay_server.ports.store import ApprovalFilter
from onbelay_server.transport.grpc.agent_wire import to_risk
from onbelay_server.transport.grpc.display import shown, shown_json, shown_line
from onbelay_server.transport.grpc.wire import parse_json, to_timestamp, value_json

MAX_TITLE = 200
MAX_ANSWER_BYTES = 65_536


def to_approval(view: ApprovalView, *, is_full: bool) -> approval_pb2.Approval:
    """An approval as its caller sees it; its texts come in display form."""
    approval = view.approval
    title = shown_line(approval.title, MAX_TITLE)
    message = approval_pb2.Approval(
        id=approval.id,
        run_id=approval.run_id,
        agent_id=approval.agent_id,
        step_id=approval.step_id,
        kind=approval_pb2.ApprovalKind.Value(f"APPROVAL_KIND_{approval.kind.value}"),
        state=approval_pb2.ApprovalState.Value(f"APPROVAL_STATE_{approval.state.value}"),
        title=title,
        display_truncated=title != shown(approval.title),
        calls=[_call(call, is_full=is_full) for call in approval.calls],
        body_sha256=approval.body_sha256,
        allowed_scope=(
            approval_pb2.ApprovalScope.APPROVAL_SCOPE_BATCH
            if len(approval.calls) > 1
            else approval_pb2.ApprovalScope.APPROVAL_SCOPE_SINGLE
        ),
        requested_by=approval.starter,
        create_time=to_timestamp(approval.create_us),
        decided_by=approval.decided_by,
        comment=shown(approval.comment, lines=True),
        can_decide=not view.obstacle,
        cannot_decide_reason=view.obstacle,
    )
    if approval.evidence_artifact_id:
        message.evidence_artifact_ids.append(approval.evidence_artifact_id)
    if is_full:
        message.summary = shown(approval.body, lines=True)
        if approval.evidence_json != "null":
            message.evidence = shown_json(approval.evidence_json)
        message.answer_schema_json = approval.answer_schema_json
        message.answer_json = approval.answer_json
    if approval.expire_us is not None:
        message.expire_time.CopyFrom(to_timestamp(approval.expire_us))
    if approval.decide_us is not None:
        message.decide_time.CopyFrom(to_timestamp(approval.decide_us))
    if approval.decision is not None:
        message.decision = approval_pb2.ApprovalDecision.Value(
            f"APPROVAL_DECISION_{approval.decision.value}"
        )
    if approval.decision is Decision.APPROVE:
        message.grant.scope = message.allowed_scope
    return message


def filter_of(request: approval_request_pb2.ListApprovalsRequest) -> ApprovalFilter:
    """Which approvals the request is about."""
    return ApprovalFilter(
        run_id=request.run_id,
        states=[
            ApprovalState(approval_pb2.ApprovalState.Name(number).removeprefix("APPROVAL_STATE_"))
            for number in request.states
        ],
        kinds=[
            ApprovalKind(approval_pb2.ApprovalKind.Name(number).removeprefix("APPROVAL_KIND_"))
            for number in request.kinds
        ],
        agent_id=request.agent,
    )


def verdict_of(request: approval_request_pb2.DecideApprovalRequest) -> Verdict:
    """What is decided. Raises InvalidArgument for a bad answer or fields that do not belong to the
    decision, FailedPrecondition (SCOPE_TOO_WIDE) for a scope that cannot be granted."""
    name = approval_pb2.ApprovalDecision.Name(request.decision)
    decision = Decision(name.removeprefix("APPROVAL_DECISION_"))
    if request.HasField("new_limit"):
        raise InvalidArgument.of("new_limit", "only for the kind BUDGET")
    if request.HasField("session_grant"):
        raise InvalidArgument.of("session_grant", "only for the scope SESSION")
    if request.scope == approval_pb2.ApprovalScope.APPROVAL_SCOPE_SESSION:
        raise FailedPrecondition(
            "this approval cannot be granted for later calls",
            reason="SCOPE_TOO_WIDE",
            metadata={"allowed_scope": "BATCH"},
        )
    return Verdict(
        decision=decision,
        body_sha256=request.body_sha256,
        answer_json=_answer(request),
        comment=request.comment,
    )


def _answer(request: approval_request_pb2.DecideApprovalRequest) -> str:
    field = request.WhichOneof("answer_value")
    if field is None:
        return ""
    text = value_json(request.answer, "answer") if field == "answer" else request.answer_json
    parse_json(text, field, max_bytes=MAX_ANSWER_BYTES)
    return text


def _call(call: ApprovedCall, *, is_full: bool) -> approval_pb2.ApprovalCall:
    return approval_pb2.ApprovalCall(
        tool=call.tool,
        risk=to_risk(call.risk),
        arguments_json=call.arguments_json if is_full else "",
        sha256=call.sha256,
    )
