"""The checker finds damage to what was sent and received: streams, pages and acknowledgements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from grpc import StatusCode

from onbelay.v1 import approval_request_pb2 as approvals_pb
from onbelay.v1 import operation_request_pb2 as operations_pb
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay.v1 import watch_request_pb2 as watch_pb
from onbelay.v1.event_pb2 import EVENT_KIND_STATE_CHANGED, RunEvent
from onbelay_server.domain.operation import OperationState
from onbelay_server.domain.state import Decision, RunState
from tests.checker import CHECKS, Final, judge
from tests.contract.entities import make_approval, make_operation
from tests.recorder import Exchange, Recording
from tests.unit import test_checker
from tests.unit.test_checker import NAME


@dataclass(slots=True)
class Told:
    """A run that was decided on, completed and spoken to, and all that its callers heard."""

    final: Final
    first: Exchange
    """A watcher's first stream, cut off behind event 5."""
    second: Exchange
    """Where it went on, to the end."""
    filtered: Exchange
    page: Exchange
    starts: list[Exchange]
    """Two calls with one request_id."""
    messages: list[Exchange]
    """Likewise."""
    others: list[Exchange]

    @property
    def recording(self) -> Recording:
        streams = [self.first, self.second, self.filtered, self.page]
        return Recording([*streams, *self.starts, *self.messages, *self.others])


def told() -> Told:
    final = test_checker.good()
    log = final.logs[NAME]
    log[4:4] = between = [RunEvent(run_id=NAME, epoch=1) for _ in range(6)]
    between[0].message_received.message_id = "msg_1"
    between[1].message_read.message_ids.append("msg_1")
    between[2].approval_requested.approval_id = "apr_1"
    between[3].approval_decided.approval_id = "apr_1"
    between[4].operation_started.operation_id = "op_1"
    between[5].operation_completed.operation_id = "op_1"
    for number, event in enumerate(log, 1):
        event.sequence = number
    run = final.runs[NAME] = replace(final.runs[NAME], last_sequence=len(log))
    final.approvals["apr_1"] = make_approval("apr_1", run, decision=Decision.APPROVE)
    done = make_operation("op_1", run, state=OperationState.SUCCEEDED)
    final.operations["op_1"] = done
    kinds = [EVENT_KIND_STATE_CHANGED]
    moves = [event for event in log if event.HasField("state_changed")]
    return Told(
        final,
        first=_watch(0, _reply(0), _reply(3, log[:3]), _reply(5, log[3:5]), watcher="ada"),
        second=_watch(5, _reply(5), _reply(12, log[5:]), watcher="ada"),
        filtered=_watch(0, _reply(0), _reply(6, moves[:1]), _reply(12, moves[1:]), kinds=kinds),
        page=_call(
            "ListRunEvents",
            watch_pb.ListRunEventsRequest(run_id=NAME, after_sequence=3),
            watch_pb.ListRunEventsResponse(events=log[3:], complete_through=12),
        ),
        starts=[_started(NAME), _started(NAME, already_started=True)],
        messages=[_said("msg_1"), _said("msg_1")],
        others=[
            _call("StopRun", runs_pb.StopRunRequest(run_id=NAME)),
            _call("DecideApproval", approvals_pb.DecideApprovalRequest(approval_id="apr_1")),
            _call("CompleteOperation", operations_pb.CompleteOperationRequest(operation_id="op_1")),
        ],
    )


def _call(method: str, request: Any, reply: Any = None) -> Exchange:
    return Exchange(method, request, 0.0, replies=[(0.1, reply)], ended_at=0.1, code=StatusCode.OK)


def _watch(after: int, *replies: Any, watcher: str = "", kinds: Sequence[Any] = ()) -> Exchange:
    request = watch_pb.WatchRunRequest(run_id=NAME, after_sequence=after, kinds=kinds)
    request.heartbeat_interval.FromSeconds(2)
    timed = [(0.1 * number, reply) for number, reply in enumerate(replies, 1)]
    return Exchange("WatchRun", request, 0.0, watcher, timed, ended_at=1.0, code=StatusCode.OK)


def _reply(through: int, events: Sequence[Any] = ()) -> Any:
    return watch_pb.WatchRunResponse(events=events, complete_through=through)


def _started(run_id: str, already_started: bool = False) -> Exchange:
    reply = runs_pb.StartRunResponse(already_started=already_started)
    reply.run.id = run_id
    return _call("StartRun", runs_pb.StartRunRequest(request_id="r1"), reply)


def _said(message_id: str) -> Exchange:
    request = runs_pb.SendMessageRequest(run_id=NAME, request_id="m1")
    return _call("SendMessage", request, runs_pb.SendMessageResponse(message_id=message_id))


def _events(stream: Exchange, reply: int) -> Any:
    """What may be changed: the events of one reply."""
    return stream.replies[reply][1].events


def test_a_good_recording_is_good() -> None:
    good = told()
    assert judge(good.recording, good.final) == []


# ---- streams and pages ---------------------------------------------------------------------------


def event_twice(told: Told) -> None:
    _events(told.first, 1).append(_events(told.first, 1)[-1])


def event_out_of_order(told: Told) -> None:
    told.filtered.replies[1:] = reversed(told.filtered.replies[1:])


def event_missing(told: Told) -> None:
    del _events(told.first, 1)[1]


def event_missing_between_streams(told: Told) -> None:
    told.second.request.after_sequence = 6
    told.second.replies[0][1].complete_through = 6
    del _events(told.second, 1)[0]


def event_twice_between_streams(told: Told) -> None:
    told.second.request.after_sequence = 4
    told.second.replies[0][1].complete_through = 4
    _events(told.second, 1).insert(0, told.final.logs[NAME][4])


def event_that_differs(told: Told) -> None:
    _events(told.second, 1)[0].message_received.message_id = "msg_2"


def stream_from_elsewhere(told: Told) -> None:
    told.second.request.after_sequence = 2


def page_from_elsewhere(told: Told) -> None:
    told.page.request.after_sequence = 1


def jump_over_events(told: Told) -> None:
    told.first.replies[2][1].complete_through = 9


def jump_over_what_the_filter_lets_through(told: Told) -> None:
    del _events(told.filtered, 1)[:]


def bookmark_that_falls(told: Told) -> None:
    told.filtered.replies[2][1].complete_through = 3


def bookmark_past_the_end(told: Told) -> None:
    told.second.replies[1][1].complete_through = 99


def silence_between_replies(told: Told) -> None:
    told.second.replies[1] = (60.0, told.second.replies[1][1])
    told.second.ended_at = 60.1


def silence_from_the_start(told: Told) -> None:
    request = watch_pb.WatchRunsRequest()
    told.others.append(Exchange("WatchRuns", request, 0.0, ended_at=60.0))


def silence_to_the_end(told: Told) -> None:
    told.second.ended_at = 60.0


# ---- what was acknowledged -----------------------------------------------------------------------


def lost_start(told: Told) -> None:
    del told.final.runs[NAME], told.final.logs[NAME]


def lost_stop(told: Told) -> None:
    told.final.runs[NAME] = replace(told.final.runs[NAME], state=RunState.QUEUED)


def lost_decision(told: Told) -> None:
    told.final.approvals["apr_1"] = replace(told.final.approvals["apr_1"], decision=None)


def decision_twice(told: Told) -> None:
    told.final.logs[NAME][4].approval_decided.approval_id = "apr_1"


def lost_completion(told: Told) -> None:
    open_still = replace(told.final.operations["op_1"], state=OperationState.OPEN)
    told.final.operations["op_1"] = open_still


def lost_message(told: Told) -> None:
    told.final.logs[NAME][4].log_written.message = "hello"


def message_twice(told: Told) -> None:
    told.final.logs[NAME][5].message_received.message_id = "msg_1"


def two_runs_of_one_request(told: Told) -> None:
    told.final.runs["run_2"] = replace(told.final.runs[NAME], id="run_2")
    told.final.logs["run_2"] = told.final.logs[NAME]
    told.starts[1] = _started("run_2", already_started=True)


def two_first_starts(told: Told) -> None:
    told.starts[1] = _started(NAME)


def two_messages_of_one_request(told: Told) -> None:
    told.messages[1] = _said("msg_2")


DAMAGES: dict[Callable[[Told], None], str] = {
    event_twice: "p1_ordered",
    event_out_of_order: "p1_ordered",
    event_missing: "p1_ordered",
    event_missing_between_streams: "p2_p3_unique_and_reliable",
    event_twice_between_streams: "p2_p3_unique_and_reliable",
    event_that_differs: "p2_p3_unique_and_reliable",
    stream_from_elsewhere: "p5_resumable",
    page_from_elsewhere: "p5_resumable",
    jump_over_events: "p6_bookmark",
    jump_over_what_the_filter_lets_through: "p6_bookmark",
    bookmark_that_falls: "p6_bookmark",
    bookmark_past_the_end: "p6_bookmark",
    silence_between_replies: "p16_no_silent_hang",
    silence_from_the_start: "p16_no_silent_hang",
    silence_to_the_end: "p16_no_silent_hang",
    lost_start: "p7_durable",
    lost_stop: "p7_durable",
    lost_decision: "p7_durable",
    decision_twice: "p7_durable",
    lost_completion: "p7_durable",
    lost_message: "p7_durable",
    message_twice: "p7_durable",
    two_runs_of_one_request: "p15_idempotent",
    two_first_starts: "p15_idempotent",
    two_messages_of_one_request: "p15_idempotent",
}


@pytest.mark.parametrize(("damage", "promise"), DAMAGES.items())
def test_damage_is_found(damage: Callable[[Told], None], promise: str) -> None:
    damaged = told()
    damage(damaged)
    found = judge(damaged.recording, damaged.final)
    assert any(line.startswith(promise) for line in found), found


def test_each_check_has_been_seen_to_fail() -> None:
    named = {*DAMAGES.values(), *test_checker.DAMAGES.values()}
    assert named == {check.__name__ for check in CHECKS}
