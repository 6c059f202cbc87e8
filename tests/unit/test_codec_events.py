"""Events survive the way to bytes and back, whatever they hold."""

from __future__ import annotations

import dataclasses
import typing
from enum import StrEnum
from types import NoneType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbelay.v1.event_pb2 import RunEvent
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.domain import effect, event, run
from onbelay_server.domain.event import (
    KINDS,
    EventPayload,
    LogWritten,
    ProgressReported,
    RunFinished,
    StateChanged,
    StepFinished,
    TextDelta,
    UnknownPayload,
)
from onbelay_server.domain.state import LogLevel, RunState
from onbelay_server.ports.event_codec import UnencodableEvent

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
UINT32 = st.integers(0, 2**32 - 1)
# Up to the end of the year 9999.
TIME_US = st.integers(0, 253402300799_999_999)
RUN_ID = "run_00000000000000000000000000"

_hints = {**vars(event), **vars(effect), **vars(run)}


def _values(name: str, hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) is tuple:
        return st.lists(TEXT, max_size=4).map(tuple)
    parts = typing.get_args(hint)
    if NoneType in parts:
        (inner,) = (part for part in parts if part is not NoneType)
        return st.none() | _values(name, inner)
    if hint is bool:
        return st.booleans()
    if hint is float:
        return st.floats(allow_nan=False)
    if hint is str:
        return TEXT
    if hint is int:
        return TIME_US if name.endswith("_us") else UINT32
    if issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    return _instances(hint)


def _instances(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, _hints)
    names = [field.name for field in dataclasses.fields(kind)]
    one_of = getattr(kind, "ONE_OF", ())
    plain = st.fixed_dictionaries({n: _values(n, hints[n]) for n in names if n not in one_of})
    if not one_of:
        return plain.map(lambda given: kind(**given))
    chosen = st.sampled_from([None, *one_of]).flatmap(
        lambda name: (
            st.just({})
            if name is None
            else _values(name, hints[name]).map(lambda value: {name: value})
        )
    )
    return st.tuples(plain, chosen).map(lambda both: kind(**both[0], **both[1]))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_an_event_comes_back_as_it_went(kind: type[EventPayload], data: st.DataObject) -> None:
    codec = ProtoEventCodec()
    payload = data.draw(_instances(kind))
    step_id = data.draw(TEXT)
    sequence = data.draw(st.integers(1, 2**32 - 1))
    time_us = data.draw(TIME_US)
    epoch = data.draw(UINT32)

    body = codec.stamp(codec.encode(RUN_ID, step_id, payload), sequence, time_us, epoch)
    recorded = codec.decode(body)

    assert recorded.payload == payload
    assert (recorded.run_id, recorded.step_id) == (RUN_ID, step_id)
    assert (recorded.sequence, recorded.time_us, recorded.epoch) == (sequence, time_us, epoch)
    # What a client reads with the generated code alone.
    message = RunEvent.FromString(body)
    assert message.sequence == sequence
    assert message.time.ToMicroseconds() == time_us
    assert message.DESCRIPTOR.fields_by_name[
        message.WhichOneof("payload") or ""
    ].number == codec.kind(payload)


def test_stamping_appends_and_leaves_the_body_alone() -> None:
    codec = ProtoEventCodec()
    body = codec.encode(RUN_ID, "root:emit#1", TextDelta(message_id="m", text="hello"))
    assert codec.stamp(body, 1, 1_790_000_000_123_456, 7).startswith(body)
    first = codec.stamp(body, 300, 1_790_000_000_123_456, 7)
    assert codec.stamp(body, 300, 1_790_000_000_123_456, 7) == first
    assert codec.decode(codec.stamp(body, 300, 1_790_000_000_123_456, 8)).epoch == 8


@pytest.mark.parametrize(
    ("sequence", "time_us", "epoch"),
    [(0, 1, 1), (-1, 1, 1), (2**32, 1, 1), (1, -1, 1), (1, 1, -1), (1, 1, 2**32)],
)
def test_a_stamp_out_of_range_is_refused(sequence: int, time_us: int, epoch: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        ProtoEventCodec().stamp(b"", sequence, time_us, epoch)


@pytest.mark.parametrize("first", [1, 2, 100, 127, 128, 16_300, 16_384, 2**21 - 5, 2**32 - 300])
def test_stamping_many_is_stamping_each(first: int) -> None:
    codec = ProtoEventCodec()
    bodies = [f"body {number}".encode() for number in range(300)]
    each = [
        codec.stamp(body, first + at, 1_790_000_000_123_456, 7) for at, body in enumerate(bodies)
    ]
    assert codec.stamp_all(bodies, first, 1_790_000_000_123_456, 7) == each
    assert codec.stamp_all([], first, 1, 0) == []


@pytest.mark.parametrize(("first", "count"), [(0, 1), (2**32 - 1, 2), (2**32, 1)])
def test_a_sequence_out_of_range_is_refused_for_many(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="sequence"):
        ProtoEventCodec().stamp_all([b"x"] * count, first, 1, 0)


def test_absent_is_not_zero() -> None:
    codec = ProtoEventCodec()
    nothing = codec.decode(codec.encode(RUN_ID, "", ProgressReported())).payload
    assert nothing == ProgressReported(done=None, total=None)
    zero = codec.decode(codec.encode(RUN_ID, "", ProgressReported(done=0.0, total=0.0))).payload
    assert zero == ProgressReported(done=0.0, total=0.0)
    by_nobody = codec.decode(codec.encode(RUN_ID, "", StepFinished(result_json=""))).payload
    assert by_nobody == StepFinished(stage=None, result_json="")
    empty = codec.decode(codec.encode(RUN_ID, "", RunFinished(state=RunState.SUCCEEDED))).payload
    assert empty == RunFinished(state=RunState.SUCCEEDED, output_json=None)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        ProtoEventCodec().encode(RUN_ID, "", TextDelta(message_id="m", text="\ud800"))


@given(run_id=st.text(), step_id=st.text(), text=st.one_of(st.text(), st.text(min_size=300)))
def test_a_text_is_encoded_as_every_event_is(run_id: str, step_id: str, text: str) -> None:
    codec = ProtoEventCodec()
    payload = TextDelta(message_id="", text=text)
    assert codec.encode_text(run_id, step_id, text) == codec.encode(run_id, step_id, payload)


@pytest.mark.parametrize("place", range(3))
def test_a_text_that_is_no_unicode_is_refused_alone_too(place: int) -> None:
    words = ["run_1", "step", "text"]
    words[place] = "\ud800"
    with pytest.raises(UnencodableEvent):
        ProtoEventCodec().encode_text(*words)


@pytest.mark.parametrize("done", [10**400, "half", object()], ids=["huge", "text", "object"])
def test_a_number_that_is_none_is_refused(done: float) -> None:
    with pytest.raises(UnencodableEvent):
        ProtoEventCodec().encode(RUN_ID, "", ProgressReported(done=done, total=1, note=""))


def test_a_number_out_of_range_is_refused() -> None:
    payload = StateChanged(from_state=RunState.QUEUED, to_state=RunState.RUNNING, attempt=2**32)
    with pytest.raises(ValueError, match="range"):
        ProtoEventCodec().encode(RUN_ID, "", payload)


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        ProtoEventCodec().encode(RUN_ID, "", StepFinished(result_json="1", duration_us=-1))


def test_a_kind_of_a_later_version_is_an_unknown_payload() -> None:
    codec = ProtoEventCodec()
    # Field 4095, a message of two bytes.
    body = RunEvent(run_id=RUN_ID).SerializeToString() + b"\xfa\xff\x01\x02\x08\x01"
    recorded = codec.decode(codec.stamp(body, 5, 1_000_000, 2))
    assert recorded.payload == UnknownPayload(4095)
    assert recorded.sequence == 5


def test_an_enum_value_of_a_later_version_makes_the_payload_unknown() -> None:
    codec = ProtoEventCodec()
    message = RunEvent(run_id=RUN_ID)
    message.log_written.level = 99  # type: ignore[assignment]
    number = codec.kind(LogWritten(level=LogLevel.INFO, message=""))
    assert codec.decode(message.SerializeToString()).payload == UnknownPayload(number)


def test_an_event_without_a_payload_is_unknown() -> None:
    assert ProtoEventCodec().decode(b"").payload == UnknownPayload(0)


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"{}"])
def test_bytes_that_are_no_event_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="no event"):
        ProtoEventCodec().decode(body)
