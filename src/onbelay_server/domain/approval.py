"""What a person is asked, and the rules of their answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onbelay_server.domain.error import FailedPrecondition, InvalidArgument, PermissionDenied
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.domain.state import ApprovalKind, ApprovalState, Decision, Risk


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedCall:
    """One call an approval is about; `sha256` is over the very bytes of `arguments_json`."""

    tool: str
    risk: Risk
    arguments_json: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One question to a person. `body_sha256` binds the answer to exactly what was shown."""

    id: str
    tenant: str
    run_id: str
    root_id: str
    step_id: str
    agent_id: str
    starter: str
    approvers: tuple[str, ...]
    """Who may decide; empty: the run's starter."""
    kind: ApprovalKind
    state: ApprovalState = ApprovalState.PENDING
    title: str
    body: str
    """Markdown shown to the person; for calls a summary."""
    body_sha256: str
    evidence_json: str = "null"
    evidence_artifact_id: str = ""
    """An artifact that whoever may decide may read too. Kept, listed and shown; no call of an agent
    sets it yet."""
    answer_schema_json: str = ""
    """QUESTION: JSON Schema of the answer."""
    calls: Sequence[ApprovedCall] = ()
    create_us: int
    expire_us: int | None
    decide_us: int | None = None
    decided_by: str = ""
    decision: Decision | None = None
    comment: str = ""
    answer_json: str = ""


def body_digest(kind: ApprovalKind, title: str, body: str, evidence_json: str, schema: str) -> str:
    """SHA-256 over everything the person is shown, each part with its length before it."""
    digest = hashlib.sha256()
    for part in (kind.value, title, body, evidence_json, schema):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def cannot_decide(approval: Approval, caller: Principal) -> PermissionDenied | None:
    """Why the caller may not decide it, or None. Only people decide, never a key its own run."""
    if not caller.is_person or Scope.APPROVALS_DECIDE not in caller.scopes:
        return PermissionDenied(
            "only a person with approvals:decide decides approvals", reason="NOT_A_PERSON"
        )
    allowed = approval.approvers or (approval.starter,)
    if caller.id not in allowed and not (caller.is_admin and not approval.approvers):
        return PermissionDenied("you are not an approver of this run", reason="NOT_AN_APPROVER")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What DecideApproval asks for."""

    decision: Decision
    body_sha256: str = ""
    answer_json: str = ""
    comment: str = ""


def decided(
    approval: Approval, verdict: Verdict, caller: Principal, now_us: int
) -> Approval | None:
    """The approval after the verdict, or None when it already says exactly that.

    Raises PermissionDenied, InvalidArgument (an answer to what is no question, a missing hash) or
    FailedPrecondition: HASH_MISMATCH, APPROVAL_EXPIRED, ALREADY_DECIDED (metadata: decision,
    decided_by, decide_time_us) and APPROVAL_NOT_PENDING for one voided or superseded.
    """
    if refusal := cannot_decide(approval, caller):
        raise refusal
    _check_form(approval, verdict)
    if approval.state is not ApprovalState.PENDING:
        _check_repeat(approval, verdict)
        return None
    if approval.expire_us is not None and now_us >= approval.expire_us:
        raise FailedPrecondition("the approval has expired", reason="APPROVAL_EXPIRED")
    state = {
        Decision.APPROVE: ApprovalState.APPROVED,
        Decision.REJECT: ApprovalState.REJECTED,
        Decision.ANSWER: ApprovalState.ANSWERED,
    }[verdict.decision]
    return replace(
        approval,
        state=state,
        decision=verdict.decision,
        decide_us=now_us,
        decided_by=caller.id,
        comment=verdict.comment,
        answer_json=verdict.answer_json,
    )


def _check_form(approval: Approval, verdict: Verdict) -> None:
    kind = approval.kind.value
    is_question = approval.kind is ApprovalKind.QUESTION
    takes_answer = is_question or approval.kind is ApprovalKind.UNKNOWN_OUTCOME
    if verdict.decision is Decision.ANSWER and not takes_answer:
        raise FailedPrecondition(
            "only a question is answered", reason="DECISION_NOT_ALLOWED", metadata={"kind": kind}
        )
    if verdict.decision is Decision.APPROVE:
        if is_question:
            raise FailedPrecondition(
                "a question is answered or rejected",
                reason="DECISION_NOT_ALLOWED",
                metadata={"kind": kind},
            )
        if not verdict.body_sha256:
            raise InvalidArgument.of("body_sha256", "required to approve")
    if verdict.body_sha256 and verdict.body_sha256 != approval.body_sha256:
        raise FailedPrecondition(
            "body_sha256 is not that of this approval: what you saw is not what would be approved",
            reason="HASH_MISMATCH",
            metadata={"body_sha256": approval.body_sha256},
        )


def _check_repeat(approval: Approval, verdict: Verdict) -> None:
    if approval.state is ApprovalState.EXPIRED:
        raise FailedPrecondition("the approval has expired", reason="APPROVAL_EXPIRED")
    if approval.decision is None:
        raise FailedPrecondition(
            f"the approval is {approval.state}",
            reason="APPROVAL_NOT_PENDING",
            metadata={"state": approval.state.value},
        )
    same = (
        approval.decision is verdict.decision
        and approval.comment == verdict.comment
        and approval.answer_json == verdict.answer_json
    )
    if not same:
        raise FailedPrecondition(
            f"already decided: {approval.decision} by {approval.decided_by}",
            reason="ALREADY_DECIDED",
            metadata={
                "decision": approval.decision.value,
                "decided_by": approval.decided_by,
                "decide_time_us": str(approval.decide_us),
            },
        )
