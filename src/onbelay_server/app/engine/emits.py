"""What an agent says to its watchers, as events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from onbelay_agent.protocol import Emit
from onbelay_server.domain.change import EncodedEvents
from onbelay_server.domain.event import (
    CustomReported,
    EventPayload,
    LogWritten,
    ProgressReported,
    TextDelta,
)
from onbelay_server.domain.state import LogLevel
from onbelay_server.ports.event_codec import EventCodec

MAX_TEXT_CHARACTERS = 60_000
"""Four bytes each at most, so that an event stays below 256 KB."""
MAX_DATA_BYTES = 200_000
MAX_NAME_CHARACTERS = 128
MAX_NOTE_CHARACTERS = 1_000
MAX_LINE_CHARACTERS = 16_000
"""As the contract limits the name of a report, the note of a progress, and a line of the log."""

_CUT = " … (cut)"


Redact = Callable[[str], str]
"""Takes out of a text what nobody may keep. Called for every text, so it must be cheap."""


def unredacted(text: str) -> str:
    """As it is."""
    return text


class EmitEncoder:
    """Makes events of emits: redacted, within the contract's limits, ready to be stored."""

    def __init__(self, codec: EventCodec, redact: Redact = unredacted) -> None:
        self._codec = codec
        self._redact = redact
        self._text_kind = codec.number(TextDelta)

    def encoded(self, emits: Sequence[Emit], run_id: str) -> EncodedEvents:
        """The events of these emits. Raises UnencodableEvent."""
        codec, redact = self._codec, self._redact
        kinds: list[int] = []
        bodies: list[bytes] = []
        for emit in emits:
            text = redact(emit.text)
            if emit.kind == "text" and len(text) <= MAX_TEXT_CHARACTERS:
                # What a model says comes in thousands of pieces; everything else is rare.
                kinds.append(self._text_kind)
                bodies.append(codec.encode_text(run_id, emit.place, text))
                continue
            clean = replace(emit, text=text, data_json=redact(emit.data_json))
            for payload in _payloads(clean):
                kinds.append(codec.kind(payload))
                bodies.append(codec.encode(run_id, emit.place, payload))
        return EncodedEvents(run_id, kinds, bodies)


def _payloads(emit: Emit) -> list[EventPayload]:
    """A long text becomes several; other long things are cut."""
    text = emit.text
    match emit.kind:
        case "text":
            parts = range(0, max(len(text), 1), MAX_TEXT_CHARACTERS)
            return [
                TextDelta(message_id="", text=text[start : start + MAX_TEXT_CHARACTERS])
                for start in parts
            ]
        case "progress":
            note = _cut(text, MAX_NOTE_CHARACTERS)
            return [ProgressReported(done=emit.done, total=emit.total, note=note)]
        case "report":
            name = _cut(text, MAX_NAME_CHARACTERS)
            if _fits(emit.data_json):
                return [CustomReported(name=name, data_json=emit.data_json)]
            message = f"the report {name!r} is larger than {MAX_DATA_BYTES} bytes: left out"
            return [LogWritten(level=LogLevel.WARNING, message=message)]
        case "log":
            data = emit.data_json if emit.data_json != "null" else ""
            if not _fits(data):
                text, data = f"{text} (its data is larger than {MAX_DATA_BYTES} bytes)", ""
            line = _cut(text, MAX_LINE_CHARACTERS)
            return [LogWritten(level=LogLevel(emit.level), message=line, data_json=data)]


def _fits(data_json: str) -> bool:
    return len(data_json.encode(errors="replace")) <= MAX_DATA_BYTES


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return text[: most - len(_CUT)] + _CUT
