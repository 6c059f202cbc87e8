"""The event codec over the generated RunEvent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from onbelay.v1.event_pb2 import RunEvent
from onbelay_server.adapters.codec.shape import Shape, UnknownNumber, microseconds
from onbelay_server.domain.event import KINDS, EventPayload, UnknownPayload
from onbelay_server.ports.event_codec import RecordedEvent, UnencodableEvent

_payload_fields = {
    KINDS[field.message_type.name]: field
    for field in RunEvent.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}
_number_of_type = {kind: field.number for kind, field in _payload_fields.items()}
_number_of_name = {field.name: field.number for field in _payload_fields.values()}
_shape_of_name = {
    field.name: Shape(kind, field.message_type)
    for kind, field in _payload_fields.items()
    if field.message_type is not None
}
_encoder_of_type = {
    kind: (field.name, _shape_of_name[field.name].to_message)
    for kind, field in _payload_fields.items()
}
_first_payload_number = min(_number_of_type.values())

# Tags of the envelope's fields that only the commit knows.
_TAG_SEQUENCE = b"\x10"
_TAG_TIME = b"\x1a"
_TAG_EPOCH = b"\x20"
_TAG_SECONDS = b"\x08"
_TAG_NANOS = b"\x10"
# Those of a text that belongs to no message.
_TAG_RUN = b"\x0a"
_TAG_STEP = b"\x2a"
_TAG_TEXT_DELTA = b"\x52"
_TAG_TEXT = b"\x12"
_MAX_UINT32 = 2**32 - 1
# The tag and the first byte of a sequence, by its low seven bits: more bytes follow, or none.
_LOW = [_TAG_SEQUENCE + bytes((low | 0x80,)) for low in range(0x80)]
_LOW_LAST = [_TAG_SEQUENCE + bytes((low,)) for low in range(0x80)]


def encode_varint(value: int) -> bytes:
    """A number from 0 as protobuf writes it: seven bits a byte, low ones first."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode_tail(time_us: int, epoch: int) -> bytes:
    """Time and epoch as fields of the envelope."""
    if time_us < 0 or not 0 <= epoch <= _MAX_UINT32:
        raise ValueError("time or epoch is out of range")
    seconds, rest_us = divmod(time_us, 1_000_000)
    time = b""
    if seconds:
        time += _TAG_SECONDS + encode_varint(seconds)
    if rest_us:
        time += _TAG_NANOS + encode_varint(rest_us * 1_000)
    tail = _TAG_TIME + encode_varint(len(time)) + time
    return tail + _TAG_EPOCH + encode_varint(epoch) if epoch else tail


def _entry(size: int) -> bytes:
    """What stands before an event of this size in a reply: field 1 of WatchRunResponse and of
    ListRunEventsResponse, `repeated RunEvent events`."""
    return b"\x0a" + encode_varint(size)


_ENTRY_SIZES = 2048
_ENTRIES = [_entry(size) for size in range(_ENTRY_SIZES)]


class ProtoEventCodec:
    """Encodes events as the contract's RunEvent. Pure and thread-safe.

    Stamping appends to what was encoded before, which protobuf allows in any order: no stored event
    is ever parsed to be sent.
    """

    def __init__(self) -> None:
        # One batch is stamped with one time and epoch: the last tail is worth keeping. It is
        # replaced as a whole, so threads that race see one or the other.
        self._tail: tuple[int, int, bytes] = (0, 0, _encode_tail(0, 0))

    def encode(self, run_id: str, step_id: str, payload: EventPayload) -> bytes:
        name, to_message = _encoder_of_type[type(payload)]
        try:
            event = RunEvent(run_id=run_id, step_id=step_id, **{name: to_message(payload)})  # type: ignore[arg-type]
            return event.SerializeToString()
        except (ValueError, TypeError, OverflowError) as error:
            # Which of them it is depends on the field: a huge int in place of a float overflows.
            raise UnencodableEvent(str(error)) from error

    def encode_text(self, run_id: str, step_id: str, text: str) -> bytes:
        try:
            run, step, words = run_id.encode(), step_id.encode(), text.encode()
        except UnicodeEncodeError as error:
            raise UnencodableEvent(str(error)) from error
        delta = _TAG_TEXT + encode_varint(len(words)) + words if words else b""
        return b"".join(
            (
                _TAG_RUN + encode_varint(len(run)) + run if run else b"",
                _TAG_STEP + encode_varint(len(step)) + step if step else b"",
                _TAG_TEXT_DELTA + encode_varint(len(delta)),
                delta,
            )
        )

    def stamp(self, body: bytes, sequence: int, time_us: int, epoch: int) -> bytes:
        """Raises ValueError for a sequence, time or epoch out of its range."""
        if not 1 <= sequence <= _MAX_UINT32:
            raise ValueError("sequence is out of range")
        return body + _TAG_SEQUENCE + encode_varint(sequence) + self._kept_tail(time_us, epoch)

    def stamp_all(
        self, bodies: Sequence[bytes], first_sequence: int, time_us: int, epoch: int
    ) -> list[bytes]:
        """Raises ValueError for a sequence, time or epoch out of its range."""
        if not 1 <= first_sequence <= _MAX_UINT32 - len(bodies) + 1:
            raise ValueError("sequence is out of range")
        tail = self._kept_tail(time_us, epoch)
        stamped: list[bytes] = []
        sequence, left = first_sequence, iter(bodies)
        while len(stamped) < len(bodies):
            # Of 128 sequences in a row only the first byte differs.
            high = sequence >> 7
            marks = _LOW_LAST if high == 0 else _LOW
            rest = encode_varint(high) + tail if high else tail
            places = marks[sequence & 0x7F :]
            stamped += [body + mark + rest for mark, body in zip(places, left, strict=False)]
            sequence = (high + 1) << 7
        return stamped

    def _kept_tail(self, time_us: int, epoch: int) -> bytes:
        kept_time_us, kept_epoch, tail = self._tail
        if kept_time_us != time_us or kept_epoch != epoch:
            tail = _encode_tail(time_us, epoch)
            self._tail = (time_us, epoch, tail)
        return tail

    def decode(self, body: bytes) -> RecordedEvent:
        """Raises ValueError when the bytes are no event."""
        try:
            event = RunEvent.FromString(body)
        except DecodeError as error:
            raise ValueError("the bytes are no event") from error
        return RecordedEvent(
            run_id=event.run_id,
            sequence=event.sequence,
            time_us=microseconds(event.time),
            epoch=event.epoch,
            step_id=event.step_id,
            payload=_payload(event),
        )

    def kind(self, payload: EventPayload) -> int:
        return _number_of_type[type(payload)]

    def number(self, kind: type[EventPayload]) -> int:
        return _number_of_type[kind]

    def frame(self, bodies: Iterable[bytes]) -> bytes:
        parts: list[bytes] = []
        for body in bodies:
            size = len(body)
            parts.append(_ENTRIES[size] if size < _ENTRY_SIZES else _entry(size))
            parts.append(body)
        return b"".join(parts)

    def without_first(self, frame: bytes, count: int) -> bytes:
        at = 0
        for _ in range(count):
            at += 1
            size = shift = 0
            while True:
                byte = frame[at]
                at += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            at += size
        return frame[at:]


def _payload(event: RunEvent) -> EventPayload | UnknownPayload:
    name = event.WhichOneof("payload")
    if name is None:
        return UnknownPayload(_unknown_number(event))
    try:
        payload: EventPayload = _shape_of_name[name].from_message(getattr(event, name))
    except UnknownNumber:
        # A later version wrote a value this one has no name for: no part of it can be trusted.
        return UnknownPayload(_number_of_name[name])
    return payload


def _unknown_number(event: RunEvent) -> int:
    unknown = UnknownFieldSet(event)  # type: ignore[no-untyped-call,unused-ignore]
    numbers = [unknown[index].field_number for index in range(len(unknown))]
    return max((number for number in numbers if number >= _first_payload_number), default=0)
