"""Every wrong field of a request is named."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from onbelay.v1 import approval_pb2, run_request_pb2, watch_request_pb2
from onbelay.v1.approval_request_pb2 import DecideApprovalRequest
from onbelay_server.domain.error import InvalidArgument
from onbelay_server.transport.grpc.validation import RequestCheck


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (run_request_pb2.StartRunRequest(request_id="r"), "agent"),
        (watch_request_pb2.WatchRunRequest(run_id="r", kinds=[10], except_kinds=[10]), "kinds"),
        (
            DecideApprovalRequest(approval_id="a", decision=approval_pb2.APPROVAL_DECISION_APPROVE),
            "body_sha256",
        ),
        (
            DecideApprovalRequest(approval_id="a", decision=approval_pb2.APPROVAL_DECISION_ANSWER),
            "answer",
        ),
        (run_request_pb2.StartRunRequest(request_id="r", agent="a b"), "agent"),
    ],
)
def test_a_rule_over_a_whole_message_names_the_field_it_is_about(
    request_: Message, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        RequestCheck().read(type(request_), request_.SerializeToString())
    assert [one.field for one in refused.value.fields] == [field]
    assert refused.value.text.startswith(f"{field}: ")
