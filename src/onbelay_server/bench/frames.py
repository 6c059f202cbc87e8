"""The bytes of the bench's own streams, and the check of what any stream delivered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from onbelay.v1.event_pb2 import RunEvent
from onbelay.v1.output_event_pb2 import TextDelta
from onbelay.v1.watch_request_pb2 import WatchRunResponse

TEXT_BYTES = 120
RUN_ID = "run_00000000000000000000000000"
STEP_ID = "root/emit#1/attempt1:emit#"
MAX_FRAME_EVENTS = 128
MAX_FRAME_BYTES = 256 * 1024


class BadDelivery(Exception):
    """A stream delivered too few, too many or unordered events; the text says which."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one stream brought of the bench's events."""

    events: int
    frames: int
    """Replies that held such events."""
    event_bytes: int
    latencies_us: list[float]
    """From emitting to receiving, of each event that carries its time."""
    last_ns: int
    """When the last of them arrived, on the monotonic clock."""


def encoded(index: int, stamp_ns: int) -> bytes:
    """An event as an emitter makes it: everything but what only the commit knows."""
    text = f"{index} {stamp_ns} ".ljust(TEXT_BYTES, ".")
    event = RunEvent(
        run_id=RUN_ID, step_id=f"{STEP_ID}{index + 1}", text_delta=TextDelta(text=text)
    )
    return event.SerializeToString()


def stamped(body: bytes, sequence: int, now_ns: int) -> bytes:
    """The event with its sequence, time and epoch."""
    seconds, nanos = divmod(now_ns, 1_000_000_000)
    when = b"\x08" + varint(seconds) + b"\x10" + varint(nanos)
    return b"".join(
        (body, b"\x10", varint(sequence), b"\x1a", varint(len(when)), when, b"\x20\x01")
    )


def frame(events: Sequence[bytes], through: int) -> bytes:
    """A WatchRunResponse of these encoded events."""
    parts: list[bytes] = []
    for event in events:
        parts += (b"\x0a", varint(len(event)), event)
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    when = b"\x08" + varint(seconds) + b"\x10" + varint(nanos)
    parts += (b"\x18", varint(through), b"\x22", varint(len(when)), when)
    return b"".join(parts)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def ready_made(count: int, per_frame: int) -> list[bytes]:
    """All frames of a stream of `count` events, made before anything is measured."""
    bodies = [stamped(encoded(i, 0), i + 1, time.time_ns()) for i in range(count)]
    return [
        frame(bodies[first : first + per_frame], min(first + per_frame, count))
        for first in range(0, count, per_frame)
    ]


def check(frames: Sequence[bytes], received_ns: Sequence[int], expected: int) -> Delivered:
    """Read a whole stream from sequence 1 on. Raises BadDelivery unless its sequences are dense
    and it holds exactly the `expected` events of the bench in their order."""
    sequence, index, filled, size, last_ns = 0, 0, 0, 0, 0
    latencies: list[float] = []
    for data, at_ns in zip(frames, received_ns, strict=True):
        before = index
        for event in WatchRunResponse.FromString(data).events:
            if event.sequence != sequence + 1:
                raise BadDelivery(f"sequence {event.sequence} followed {sequence}")
            sequence = event.sequence
            if event.WhichOneof("payload") != "text_delta":
                continue
            number, stamp, _ = event.text_delta.text.split(" ", 2)
            if int(number) != index:
                raise BadDelivery(f"event {number} came where {index} was due")
            index += 1
            size += event.ByteSize()
            if int(stamp):
                latencies.append((at_ns - int(stamp)) / 1000)
        if index > before:
            filled += 1
            last_ns = at_ns
    if index != expected:
        raise BadDelivery(f"{index} events came, {expected} were due")
    return Delivered(index, filled, size, latencies, last_ns)
