"""How events become the bytes that are stored once and sent many times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from onbelay_server.domain.event import EventPayload, UnknownPayload


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """One event as the log holds it."""

    run_id: str
    sequence: int
    time_us: int
    epoch: int
    step_id: str
    payload: EventPayload | UnknownPayload


class UnencodableEvent(ValueError):
    """A value that no event can hold: half of a surrogate pair, a number out of its range."""


class EventCodec(Protocol):
    """Turns events into stored bytes and back. Pure and thread-safe."""

    def encode(self, run_id: str, step_id: str, payload: EventPayload) -> bytes:
        """The event's bytes without sequence, time and epoch, which only the commit knows.

        Raises UnencodableEvent."""
        ...

    def encode_text(self, run_id: str, step_id: str, text: str) -> bytes:
        """`encode` of a TextDelta without a message, for those come by the thousand.

        Raises UnencodableEvent."""
        ...

    def stamp(self, body: bytes, sequence: int, time_us: int, epoch: int) -> bytes:
        """`body` with sequence, time and epoch appended as fields, nothing encoded again."""
        ...

    def stamp_all(
        self, bodies: Sequence[bytes], first_sequence: int, time_us: int, epoch: int
    ) -> list[bytes]:
        """`stamp` for events of one run and commit, whose sequences count from the first."""
        ...

    def decode(self, body: bytes) -> RecordedEvent:
        """The event held in stamped bytes. A kind this build does not know is an UnknownPayload."""
        ...

    def kind(self, payload: EventPayload) -> int:
        """The number of the payload's kind, the same for ever; stored beside the bytes."""
        ...

    def number(self, kind: type[EventPayload]) -> int:
        """The number of a kind, as `kind` gives it for a payload: for queries by kind."""
        ...

    def frame(self, bodies: Iterable[bytes]) -> bytes:
        """Stamped events as the entries of a reply: its first bytes, which more fields may follow.
        No event is read."""
        ...

    def without_first(self, frame: bytes, count: int) -> bytes:
        """What `frame` gives, less the entries of its first `count` events."""
        ...
