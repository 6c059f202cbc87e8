"""Packs the events of a log into frames, and takes a frame up in its middle."""

from __future__ import annotations

from collections.abc import Sequence

from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import (
    MAX_FRAME_BYTES,
    MAX_FRAME_EVENTS,
    Frame,
    StoredEvent,
)


def pack(events: Sequence[StoredEvent], codec: EventCodec, *, with_rest: bool) -> list[Frame]:
    """Frames of dense events, in order. The last one is made only `with_rest`, or when it is whole:
    when it has the most events, or the next event would be too much for it."""
    frames: list[Frame] = []
    begin, size = 0, 0
    for at, event in enumerate(events):
        length = len(event.body)
        if at > begin and (at - begin == MAX_FRAME_EVENTS or size + length > MAX_FRAME_BYTES):
            frames.append(_frame(events[begin:at], codec))
            begin, size = at, 0
        size += length
    rest = events[begin:]
    if rest and (with_rest or len(rest) == MAX_FRAME_EVENTS):
        frames.append(_frame(rest, codec))
    return frames


def _frame(events: Sequence[StoredEvent], codec: EventCodec) -> Frame:
    data = codec.frame(event.body for event in events)
    return Frame(events[0].sequence, events[-1].sequence, data)


def joined(frames: Sequence[Frame], after: int, codec: EventCodec) -> list[Frame]:
    """The frames behind `after`, of some in order that may begin before it: none when there is
    nothing right behind it."""
    found: list[Frame] = []
    for frame in frames:
        if frame.last <= after:
            continue
        if frame.first > after + 1:
            break
        if frame.first <= after:
            data = codec.without_first(frame.data, after + 1 - frame.first)
            frame = Frame(after + 1, frame.last, data)
        found.append(frame)
        after = frame.last
    return found
