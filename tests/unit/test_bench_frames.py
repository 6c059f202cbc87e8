"""What the bench's streams hold, and that a wrong delivery never counts as a measurement."""

from __future__ import annotations

import pytest

from onbelay.v1.event_pb2 import RunEvent
from onbelay.v1.run_event_pb2 import RunStarted
from onbelay.v1.watch_request_pb2 import WatchRunResponse
from onbelay_server.bench.frames import BadDelivery, check, encoded, frame, ready_made, stamped


def stream(indices: list[int], *, stamp_ns: int = 0, first_sequence: int = 1) -> list[bytes]:
    return [
        frame([stamped(encoded(index, stamp_ns), first_sequence + at, 10**18)], first_sequence + at)
        for at, index in enumerate(indices)
    ]


def test_a_made_event_is_one_of_the_contract_and_has_the_size_that_the_rows_speak_of() -> None:
    body = stamped(encoded(7, 42), 9, 1_700_000_000_000_000_005)
    event = RunEvent.FromString(body)
    assert event.sequence == 9
    assert event.epoch == 1
    assert event.time.ToNanoseconds() == 1_700_000_000_000_000_005
    assert event.text_delta.text.startswith("7 42 ")
    assert 190 <= len(body) <= 220


def test_ready_made_frames_hold_all_events_in_order_and_say_how_far_they_go() -> None:
    frames = ready_made(300, 128)
    assert [WatchRunResponse.FromString(one).complete_through for one in frames] == [128, 256, 300]
    delivered = check(frames, [1, 2, 3], 300)
    assert (delivered.events, delivered.frames, delivered.last_ns) == (300, 3, 3)
    assert delivered.latencies_us == []


def test_latency_is_from_the_time_in_the_event_to_the_arrival_of_its_frame() -> None:
    delivered = check(stream([0, 1], stamp_ns=1_000_000), [1_500_000, 3_000_000], 2)
    assert delivered.latencies_us == [500.0, 2000.0]


def test_events_of_other_kinds_count_for_the_order_alone() -> None:
    other = RunEvent(sequence=1, run_started=RunStarted()).SerializeToString()
    frames = [frame([other], 1), *stream([0], first_sequence=2)]
    delivered = check(frames, [1, 2], 1)
    assert delivered.events == 1
    assert delivered.frames == 1


@pytest.mark.parametrize(
    ("frames", "expected", "text"),
    [
        (stream([0, 1]), 3, "2 events came, 3 were due"),
        (stream([0, 1, 2]), 2, "3 events came, 2 were due"),
        (stream([0, 2]), 2, "event 2 came where 1 was due"),
        (stream([0, 0]), 2, "event 0 came where 1 was due"),
        (stream([0]) + stream([1], first_sequence=3), 2, "sequence 3 followed 1"),
        (stream([0]) + stream([1]), 2, "sequence 1 followed 1"),
        (stream([0], first_sequence=2), 1, "sequence 2 followed 0"),
    ],
)
def test_too_few_too_many_or_unordered_events_are_refused(
    frames: list[bytes], expected: int, text: str
) -> None:
    with pytest.raises(BadDelivery, match=text):
        check(frames, list(range(len(frames))), expected)
