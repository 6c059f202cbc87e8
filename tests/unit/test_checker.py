"""The checker finds damage to what a database holds: a good log passes, each damage is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from onbelay.v1.event_pb2 import RunEvent
from onbelay_server.domain.run import Run, StopRequest
from onbelay_server.domain.state import RunState
from tests.checker import Final, judge
from tests.recorder import Recording

NAME = "run_1"
_QUEUED, _RUNNING = 1, 2
_SUCCEEDED = list(RunState).index(RunState.SUCCEEDED) + 1


def good() -> Final:
    """A run of one once-step that ended well."""
    final = Final()
    final.runs[NAME] = Run(
        id=NAME,
        tenant="default",
        starter="user:ada",
        root_id=NAME,
        agent_id="agt_1",
        agent_name="it",
        agent_revision=1,
        agent_owner="user:ada",
        input_json="{}",
        state=RunState.SUCCEEDED,
        epoch=1,
        ready_us=0,
        create_us=0,
        update_us=0,
        finish_us=7,
        last_sequence=6,
    )
    log = [RunEvent(run_id=NAME, sequence=number, epoch=1) for number in range(1, 7)]
    for number, event in enumerate(log, 1):
        event.time.FromMicroseconds(number)
    log[0].epoch = 0
    log[0].run_started.agent_name = "it"
    log[1].state_changed.from_state, log[1].state_changed.to_state = _QUEUED, _RUNNING
    log[2].step_id = log[3].step_id = "main:step:pay#1"
    log[2].step_started.request_json = '{"once":true}'
    log[3].step_finished.result_json = "1"
    log[4].state_changed.from_state, log[4].state_changed.to_state = _RUNNING, _SUCCEEDED
    log[5].run_finished.state = _SUCCEEDED
    final.logs[NAME] = log
    return final


def test_a_good_log_is_good() -> None:
    assert judge(Recording(), good()) == []


def gap(final: Final) -> None:
    final.logs[NAME][3].sequence = 40


def lost_event(final: Final) -> None:
    del final.logs[NAME][3]


def wrong_state(final: Final) -> None:
    final.runs[NAME] = replace(final.runs[NAME], state=RunState.FAILED)


def two_ends(final: Final) -> None:
    final.logs[NAME][3].run_finished.state = _SUCCEEDED


def falling_epoch(final: Final) -> None:
    final.logs[NAME][3].epoch = 0


def two_results(final: Final) -> None:
    final.logs[NAME][4].CopyFrom(_numbered(final.logs[NAME][3], 5))


def repeated(final: Final) -> None:
    event = final.logs[NAME][3]
    event.step_restarted.attempt = 2


def stopping_for_ever(final: Final) -> None:
    final.runs[NAME] = replace(final.runs[NAME], state=RunState.STOPPING)


def begun_after_a_stop(final: Final) -> None:
    stop = StopRequest(
        requested_by="user:ada", reason="", request_us=2, grace_until_us=10, kill_us=20
    )
    final.runs[NAME] = replace(final.runs[NAME], stop=stop)


def lost_operation(final: Final) -> None:
    final.logs[NAME][3].operation_started.operation_id = "op_1"


def unsent_message(final: Final) -> None:
    final.logs[NAME][3].message_read.message_ids.append("msg_1")


def stopped_late(final: Final) -> None:
    stop = StopRequest(
        requested_by="user:ada", reason="", request_us=6, grace_until_us=10, kill_us=20
    )
    final.runs[NAME] = replace(final.runs[NAME], stop=stop, finish_us=60_000_000)


def message_twice(final: Final) -> None:
    final.logs[NAME][2].message_received.message_id = "msg_1"
    final.logs[NAME][3].message_read.message_ids.extend(["msg_1", "msg_1"])


def _numbered(event: Any, number: int) -> Any:
    copy = RunEvent()
    copy.CopyFrom(event)
    copy.sequence = number
    return copy


DAMAGES: dict[Callable[[Final], None], str] = {
    gap: "p1_ordered",
    lost_event: "p4_atomic",
    wrong_state: "p4_atomic",
    two_ends: "p8_terminal_is_final",
    falling_epoch: "p9_single_owner",
    two_results: "p17_durable_execution",
    repeated: "p17_durable_execution",
    message_twice: "p17_durable_execution",
    stopping_for_ever: "p16_no_silent_hang",
    begun_after_a_stop: "p10_stop_bound",
    stopped_late: "p10_stop_bound",
    lost_operation: "p4_atomic",
    unsent_message: "p17_durable_execution",
}


@pytest.mark.parametrize(("damage", "promise"), DAMAGES.items())
def test_damage_is_found(damage: Callable[[Final], None], promise: str) -> None:
    final = good()
    damage(final)
    found = judge(Recording(), final)
    assert any(line.startswith(promise) for line in found), found
