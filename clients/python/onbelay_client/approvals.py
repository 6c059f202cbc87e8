"""Approvals: what runs ask people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from onbelay.v1.run_service_pb2_grpc import RunServiceStub
from onbelay_client import contract as pb
from onbelay_client.calling import Caller, new_request_id
from onbelay_client.protojson import json_text


class Approvals:
    """The part of RunService that is about approvals. Every method gives the reply as it came."""

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._stub = RunServiceStub(channel)
        self._caller = caller

    def list(
        self,
        run_id: str = "",
        *,
        states: Sequence[pb.ApprovalState.ValueType] = (),
        kinds: Sequence[pb.ApprovalKind.ValueType] = (),
        agent: str = "",
        decidable_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        full: bool = False,
    ) -> pb.ListApprovalsResponse:
        """A page of approvals, newest first; conditions are joined by "and"."""
        request = pb.ListApprovalsRequest(
            run_id=run_id,
            states=states,
            kinds=kinds,
            agent=agent,
            decidable_only=decidable_only,
            page_size=page_size,
            page_token=page_token,
            view=pb.RUN_VIEW_FULL if full else pb.RUN_VIEW_BASIC,
        )
        return self._caller.call(self._stub.ListApprovals, request)

    def get(self, approval_id: str) -> pb.GetApprovalResponse:
        """One approval with everything that speaks for it."""
        return self._caller.call(
            self._stub.GetApproval, pb.GetApprovalRequest(approval_id=approval_id)
        )

    def approve(
        self,
        approval_id: str,
        body_sha256: str,
        *,
        comment: str = "",
        scope: pb.ApprovalScope.ValueType = pb.APPROVAL_SCOPE_UNSPECIFIED,
        request_id: str | None = None,
    ) -> pb.DecideApprovalResponse:
        """Say yes to exactly what `body_sha256` stands for: the digest of what was looked at."""
        return self._decide(
            pb.DecideApprovalRequest(
                approval_id=approval_id,
                decision=pb.APPROVAL_DECISION_APPROVE,
                body_sha256=body_sha256,
                comment=comment,
                scope=scope,
                request_id=request_id or new_request_id(),
            )
        )

    def reject(
        self, approval_id: str, *, comment: str = "", request_id: str | None = None
    ) -> pb.DecideApprovalResponse:
        """Say no; the agent gets the comment."""
        return self._decide(
            pb.DecideApprovalRequest(
                approval_id=approval_id,
                decision=pb.APPROVAL_DECISION_REJECT,
                comment=comment,
                request_id=request_id or new_request_id(),
            )
        )

    def answer(
        self,
        approval_id: str,
        answer: Any = None,
        *,
        answer_json: str | None = None,
        comment: str = "",
        request_id: str | None = None,
    ) -> pb.DecideApprovalResponse:
        """Answer a question with a value, or with JSON text."""
        return self._decide(
            pb.DecideApprovalRequest(
                approval_id=approval_id,
                decision=pb.APPROVAL_DECISION_ANSWER,
                answer_json=json_text(answer) if answer_json is None else answer_json,
                comment=comment,
                request_id=request_id or new_request_id(),
            )
        )

    def _decide(self, request: pb.DecideApprovalRequest) -> pb.DecideApprovalResponse:
        return self._caller.call(self._stub.DecideApproval, request)
