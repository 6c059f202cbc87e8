"""RunService: what people are asked and decide."""

from __future__ import annotations

from onbelay.v1 import approval_request_pb2 as pb
from onbelay.v1 import run_pb2
from onbelay_server.app.approvals import Approvals
from onbelay_server.ports.store import Place
from onbelay_server.transport.grpc.approval_wire import filter_of, to_approval, verdict_of
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.page_token import PageTokens, fitting, page_size
from onbelay_server.transport.grpc.request_id import idempotency
from onbelay_server.transport.grpc.wire import to_timestamp


class ApprovalCalls:
    """Answers ListApprovals, GetApproval and DecideApproval."""

    def __init__(self, approvals: Approvals, tokens: PageTokens) -> None:
        self._approvals = approvals
        self._tokens = tokens

    async def list_approvals(
        self, request: pb.ListApprovalsRequest, call: Call
    ) -> pb.ListApprovalsResponse:
        page = await self._approvals.list_approvals(
            call.caller,
            filter_of(request),
            decidable_only=request.decidable_only,
            after=self._tokens.read(request, call.caller),
            limit=page_size(request.page_size),
        )
        is_full = request.view == run_pb2.RunView.RUN_VIEW_FULL
        shown = fitting(to_approval(view, is_full=is_full) for view in page.approvals)
        response = pb.ListApprovalsResponse(approvals=shown, server_time=to_timestamp(page.now_us))
        after = page.after
        if len(shown) < len(page.approvals):
            last = page.approvals[len(shown) - 1].approval
            after = Place(last.create_us, last.id)
        if after is not None:
            response.next_page_token = self._tokens.issue(request, call.caller, after)
        return response

    async def get_approval(
        self, request: pb.GetApprovalRequest, call: Call
    ) -> pb.GetApprovalResponse:
        view = await self._approvals.get(call.caller, request.approval_id)
        return pb.GetApprovalResponse(
            approval=to_approval(view, is_full=True), server_time=to_timestamp(view.now_us)
        )

    async def decide_approval(
        self, request: pb.DecideApprovalRequest, call: Call
    ) -> pb.DecideApprovalResponse:
        view = await self._approvals.decide(
            call.caller, request.approval_id, verdict_of(request), idempotency(request, call)
        )
        return pb.DecideApprovalResponse(
            approval=to_approval(view, is_full=True), server_time=to_timestamp(view.now_us)
        )
