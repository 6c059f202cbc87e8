"""What an agent says to its watchers, as events."""

from __future__ import annotations

from onbelay_agent.protocol import Emit
from onbelay_server.domain.change import EncodedEvent
from onbelay_server.domain.event import (
    CustomReported,
    EventPayload,
    LogWritten,
    ProgressReported,
    TextDelta,
)
from onbelay_server.domain.state import LogLevel
from onbelay_server.ports.event_codec import EventCodec

MAX_EMIT_CHARACTERS = 60_000
"""Four bytes each at most, so that an event stays below 256 KB."""
MAX_REPORT_BYTES = 200_000


def event_of(emit: Emit, run_id: str, codec: EventCodec) -> list[EncodedEvent]:
    """The events of one emit, encoded. Raises UnencodableEvent."""
    return [
        EncodedEvent(run_id, codec.kind(payload), codec.encode(run_id, emit.place, payload))
        for payload in _payloads(emit)
    ]


def _payloads(emit: Emit) -> list[EventPayload]:
    """A long text becomes several; other long things are cut."""
    text = emit.text
    match emit.kind:
        case "text":
            parts = range(0, max(len(text), 1), MAX_EMIT_CHARACTERS)
            return [
                TextDelta(message_id="", text=text[start : start + MAX_EMIT_CHARACTERS])
                for start in parts
            ]
        case "progress":
            return [ProgressReported(done=emit.done, total=emit.total, note=_cut(text))]
        case "report":
            if len(emit.data_json.encode(errors="replace")) <= MAX_REPORT_BYTES:
                return [CustomReported(name=_cut(text), data_json=emit.data_json)]
            message = f"the report {text[:100]!r} is larger than {MAX_REPORT_BYTES} bytes: left out"
            return [LogWritten(level=LogLevel.WARNING, message=message)]
        case "log":
            return [LogWritten(level=LogLevel(emit.level), message=_cut(text))]


def _cut(text: str) -> str:
    if len(text) <= MAX_EMIT_CHARACTERS:
        return text
    return text[:MAX_EMIT_CHARACTERS] + " … (cut)"
