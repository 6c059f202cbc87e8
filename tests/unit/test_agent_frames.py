from __future__ import annotations

import base64
from typing import get_args

import pytest

from onbelay_agent import protocol
from onbelay_agent.protocol import (
    Begin,
    Begun,
    Cancel,
    Emit,
    Emitted,
    Ended,
    Failure,
    Finish,
    Go,
    InputArtifact,
    Intent,
    Parked,
    Pulse,
    Ready,
    Record,
    Recorded,
    Reopened,
    Start,
    Stop,
    Suspend,
)
from onbelay_agent.stdio import (
    Blob,
    BlobKept,
    BrokenFrame,
    Frame,
    GetBlob,
    PutBlob,
    decode_frame,
    encode_frame,
    encode_start,
)

EMIT = Emit(
    place="main:emit#1", kind="progress", text="ü\n", done=0.5, total=2, data_json='{"a":1}'
)
FAILURE = Failure(type="Rejected", message="no", data_json='{"by":"ada"}')
RECORD = Record(
    type="started", step_id="main:step:a#1", time_us=5, kind="STEP", digest="d", stage=0, attempt=2
)
INTENT = Intent(
    id="main:tool:t#1", kind="TOOL", name="t", digest="d", request_json="{}", cancelled=True
)
START = Start(
    run_id="r",
    agent="a",
    attempt=2,
    start_us=7,
    input_json='{"name":"A\\u0000"}',
    seed="s",
    env={"A": "b"},
    input_artifacts=(
        InputArtifact(name="f", artifact_id="art", media_type="m", size_bytes=1, sha256="00"),
    ),
    emitted={"main": 3},
)
FRAMES: list[Frame] = [
    Ready(protocol=1, python="3.12", fingerprint="f"),
    Begin(
        stage=0,
        emits=(EMIT,),
        intents=(INTENT,),
        reopened=(Reopened(step_id="a", attempt=2, once=True),),
    ),
    Finish(step_id="a", stage=3, failure=FAILURE, duration_us=4),
    Finish(step_id="a", stage=0, ok_json="null"),
    Cancel(step_ids=("a", "b")),
    Emitted(emits=(EMIT,)),
    Parked(stage=1, waiting=("a",)),
    Pulse(),
    Ended(outcome="returned", output_json='"x"', abandoned=("t",)),
    START,
    Go(),
    Begun(stage=0, held=("a",)),
    Recorded(record=RECORD),
    Recorded(record=Record(type="finished", step_id="a", time_us=1, failure=FAILURE)),
    Suspend(),
    Stop(grace_seconds=2.5, reason="enough"),
    PutBlob(sha256="00", offset=0, content=b"\xff\x00", last=True),
    GetBlob(sha256="00"),
    Blob(sha256="00", offset=3, content=b"abc", last=False),
    Blob(sha256="00", missing=True),
    BlobKept(sha256="00"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_frames_come_back_as_they_were(frame: Frame) -> None:
    line = encode_frame(frame)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_frame(line) == frame


def test_every_frame_is_covered() -> None:
    kinds = {*get_args(protocol.ToHost), *get_args(protocol.FromHost)}
    assert kinds <= {type(frame) for frame in FRAMES}


def test_the_wire_is_what_the_other_side_expects() -> None:
    assert encode_frame(Begun(stage=2)) == b'{"begun":{"stage":2}}\n'
    put = PutBlob(sha256="00", offset=0, content=b"hi", last=True)
    assert base64.b64encode(b"hi") in encode_frame(put)
    assert decode_frame(b'{"go":{"unknown":1}}') == Go()


def test_the_journal_follows_start_record_by_record() -> None:
    start = Start(
        run_id="r", agent="a", attempt=1, start_us=0, input_json="{}", seed="", journal=(RECORD,)
    )
    frames = [decode_frame(line) for line in encode_start(start)]
    assert [type(frame) for frame in frames] == [Start, Recorded]
    with pytest.raises(ValueError, match="journal"):
        encode_frame(start)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"unknown":{}}',
        b'{"go":{},"stop":{}}',
        b'{"begun":{}}',
        b'{"begun":{"stage":"0"}}',
        b'{"put_blob":{"sha256":"0","offset":0,"content":"?","last":true}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_frame_is_refused(line: bytes) -> None:
    with pytest.raises(BrokenFrame):
        decode_frame(line)
