"""What an agent says becomes events that keep to the contract's own limits."""

from __future__ import annotations

from typing import Any

import pytest

from onbelay.v1 import event_pb2
from onbelay_agent.protocol import Emit
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.app.engine.emits import MAX_DATA_BYTES, MAX_TEXT_CHARACTERS, EmitEncoder
from onbelay_server.transport.grpc.validation import RequestCheck

CODEC = ProtoEventCodec()


def events_of(*emits: Emit) -> list[event_pb2.RunEvent]:
    made = EmitEncoder(CODEC).encoded(emits, "run_1")
    events = [event_pb2.RunEvent.FromString(body) for body in made.bodies]
    fields = event_pb2.RunEvent.DESCRIPTOR.fields_by_name
    assert made.kinds == [fields[one.WhichOneof("payload")].number for one in events]
    return events


def emit(kind: Any, text: str, **more: Any) -> Emit:
    return Emit(place="root:emit#1", kind=kind, text=text, **more)


@pytest.mark.parametrize("kind", ["text", "progress", "report", "log"])
@pytest.mark.parametrize("length", [0, 1, 128, 129, 1_000, 1_001, 16_000, 16_001, 60_001])
@pytest.mark.parametrize("letter", ["a", "\U0001f9d7"])
def test_whatever_is_said_is_a_valid_event(kind: str, length: int, letter: str) -> None:
    for event in events_of(emit(kind, letter * length)):
        payload = getattr(event, str(event.WhichOneof("payload")))
        RequestCheck([type(payload)]).read(type(payload), payload.SerializeToString())


def test_a_long_text_is_told_in_pieces_and_nothing_is_lost() -> None:
    text = "ab" * MAX_TEXT_CHARACTERS + "c"
    events = events_of(emit("text", text))
    assert len(events) == 3
    assert "".join(one.text_delta.text for one in events) == text
    assert {(one.run_id, one.step_id) for one in events} == {("run_1", "root:emit#1")}


def test_what_is_cut_says_so() -> None:
    (progress, line) = events_of(emit("progress", "x" * 2_000, done=1.0), emit("log", "y" * 20_000))
    assert progress.progress_reported.note.endswith(" … (cut)")
    assert line.log_written.message.endswith(" … (cut)")


def test_a_report_that_is_too_large_is_left_out_and_the_log_says_so() -> None:
    (event,) = events_of(emit("report", "table", data_json='"' + "x" * MAX_DATA_BYTES + '"'))
    assert "table" in event.log_written.message


def test_a_line_of_the_log_carries_its_data() -> None:
    (plain, told, large) = events_of(
        emit("log", "found"),
        emit("log", "found", data_json='{"rows":3}', level="WARNING"),
        emit("log", "found", data_json='"' + "x" * MAX_DATA_BYTES + '"'),
    )
    assert plain.log_written.data_json == ""
    assert told.log_written.data_json == '{"rows":3}'
    assert large.log_written.data_json == ""
    assert "larger than" in large.log_written.message


def test_every_text_passes_the_redactor() -> None:
    encoder = EmitEncoder(CODEC, lambda text: text.replace("hidden", "***"))
    said = [emit(kind, "a hidden b", data_json='"hidden"') for kind in ("text", "report", "log")]
    bodies = encoder.encoded(said, "run_1").bodies
    assert len(bodies) == 3
    assert all(b"***" in body and b"hidden" not in body for body in bodies)
