"""What a child may say: frames whose words fit the protocol, not only their JSON.

The process behind a pipe may hold anything, so nothing it says is trusted to be what the agent's
package would have said. Who keeps the log reads only what passed here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from onbelay_agent.frames import BrokenFrame, Frame
from onbelay_agent.protocol import (
    MAX_INLINE_BYTES,
    PROTOCOL_VERSION,
    Begin,
    Emit,
    Emitted,
    Ended,
    Finish,
    Intent,
    Ready,
    Record,
)

MAX_ID_CHARACTERS: Final = 4_000
MAX_NAME_CHARACTERS: Final = 4_000
_MAX_INTEGER: Final = 2**63 - 1
_MAX_STAGE: Final = 2**31 - 1

_PLACE = re.compile(r".+:emit#[0-9]{1,9}", re.DOTALL)
_PYTHON = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EMIT_KINDS = ("text", "progress", "report", "log")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_OUTCOMES = ("returned", "raised", "diverged", "stuck", "stopped", "suspended")


class Vetting:
    """Knows what one copy may say, by its journal and by what it has said so far."""

    def __init__(self, journal: Sequence[Record]) -> None:
        self._begun: dict[str, str] = {
            record.step_id: record.kind or "" for record in journal if record.type == "started"
        }
        """The kind of every call that was asked, by its id."""
        self.kept: set[str] = set()
        """The SHA-256 of each blob that it has put."""

    def vet(self, frame: Frame) -> None:
        """Raises BrokenFrame for what no copy may say."""
        try:
            match frame:
                case Ready():
                    _require(frame.protocol == PROTOCOL_VERSION, "another protocol")
                    _require(_PYTHON.fullmatch(frame.python) is not None, "no version of Python")
                    _name(frame.fingerprint, MAX_NAME_CHARACTERS)
                case Begin():
                    _emits(frame)
                    self._begin(frame)
                case Finish():
                    _emits(frame)
                    self._finish(frame)
                case Emitted():
                    _emits(frame)
                case Ended():
                    _emits(frame)
                    self._ended(frame)
                case _:
                    return
        except BrokenFrame:
            raise
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise BrokenFrame(f"not a frame: {type(error).__name__}") from None

    def _begin(self, frame: Begin) -> None:
        _require(0 <= frame.stage <= _MAX_STAGE, "a stage out of range")
        for intent in frame.intents:
            _require(intent.id not in self._begun, "a call that was asked before")
            self._intent(intent)
            self._begun[intent.id] = intent.kind
        for again in frame.reopened:
            _require(again.step_id in self._begun, "a call that was never asked")
            _require(1 <= again.attempt <= _MAX_STAGE, "an attempt out of range")

    def _intent(self, intent: Intent) -> None:
        _name(intent.id, MAX_ID_CHARACTERS)
        _require(intent.id != "" and ":emit#" not in intent.id, "a call without an id")
        _name(intent.name, MAX_NAME_CHARACTERS)
        _require(_SHA256.fullmatch(intent.digest) is not None, "a digest that is none")
        check = _REQUESTS.get(intent.kind)
        if check is None:
            raise BrokenFrame("an unknown kind of call")
        request = _json(intent.request_json)
        _require(isinstance(request, dict), "a request that is no object")
        check(request)
        if intent.kind == "ARTIFACT_SAVE" and not intent.cancelled:
            _require(request["sha256"] in self.kept, "a blob that was not put")

    def _finish(self, frame: Finish) -> None:
        _require(self._begun.get(frame.step_id) == "STEP", "the end of what is no step of it")
        _require(0 <= frame.stage <= _MAX_STAGE, "a stage out of range")
        _require(0 <= frame.duration_us <= _MAX_INTEGER, "a duration out of range")
        if frame.failure is not None:
            _name(frame.failure.type, MAX_NAME_CHARACTERS)
            _name(frame.failure.message, MAX_INLINE_BYTES // 4)
            _json(frame.failure.data_json)
        else:
            self._result(frame.ok_json, frame.content_sha256)

    def _ended(self, frame: Ended) -> None:
        _require(frame.outcome in _OUTCOMES, "an unknown outcome")
        _name("".join(frame.abandoned), MAX_INLINE_BYTES // 4)
        if frame.outcome == "returned" or frame.content_sha256 or frame.output_json is not None:
            self._result(frame.output_json, frame.content_sha256)

    def _result(self, text: str | None, content_sha256: str) -> None:
        if content_sha256:
            _require(content_sha256 in self.kept, "a blob that was not put")
        elif text is None:
            raise BrokenFrame("an end without a result")
        else:
            _json(text)


def _emits(frame: Begin | Finish | Emitted | Ended) -> None:
    for emit in frame.emits:
        _emit(emit)


def _emit(emit: Emit) -> None:
    _name(emit.place, MAX_ID_CHARACTERS)
    _require(_PLACE.fullmatch(emit.place) is not None, "an emit without a place")
    _require(emit.kind in _EMIT_KINDS, "an unknown kind of emit")
    _require(emit.level in _LEVELS, "an unknown level")
    for number in (emit.done, emit.total):
        _require(number is None or _is_number(number), "progress that is no number")
    _json(emit.data_json)


# ---- requests, by the kind of call ---------------------------------------------------------------

Request = Mapping[str, Any]


def _step(request: Request) -> None:
    _require(type(request.get("once", False)) is bool, "once is no boolean")


def _tool(request: Request) -> None:
    _text(request["tool"])
    _require("arguments" in request, "a tool call without arguments")
    _seconds(request.get("timeout_seconds"))


def _approval(request: Request) -> None:
    _text(request["title"])
    _text(request.get("body", ""))


def _question(request: Request) -> None:
    _text(request["question"])
    _schema(request.get("schema"))


def _timer(request: Request) -> None:
    _require(type(request["due_us"]) is int, "a timer without a time")


def _artifact_read(request: Request) -> None:
    _text(request["name"])


def _artifact_save(request: Request) -> None:
    for key in ("name", "media_type", "sha256"):
        _text(request[key])


def _child(request: Request) -> None:
    if "agent" in request:
        _text(request["agent"])
        _text(request["input_json"])
        _json(request["input_json"])
    else:
        _text(request["child_run_id"])


def _operation(request: Request) -> None:
    if "name" in request:
        _text(request["name"])
        _schema(request.get("schema"))
        _seconds(request.get("expires_seconds"))
    else:
        _text(request["operation_id"])


def _messages(request: Request) -> None:
    _require(type(request.get("wait", True)) is bool, "wait is no boolean")


def _version(request: Request) -> None:
    version = request["version"]
    _require(type(version) is int and abs(version) <= _MAX_STAGE, "a version out of range")


_REQUESTS: Mapping[str, Callable[[Request], None]] = {
    "STEP": _step,
    "TOOL": _tool,
    "APPROVAL": _approval,
    "QUESTION": _question,
    "CHILD": _child,
    "OPERATION": _operation,
    "TIMER": _timer,
    "MESSAGES": _messages,
    "ARTIFACT_READ": _artifact_read,
    "ARTIFACT_SAVE": _artifact_save,
    "VERSION": _version,
}


# ---- values --------------------------------------------------------------------------------------


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenFrame(what)


def _text(value: object) -> None:
    _require(isinstance(value, str), "something that is no text")


def _name(text: str, most: int) -> None:
    _require(len(text) <= most, "a name that is too long")


def _schema(value: object) -> None:
    _require(value is None or isinstance(value, dict | bool), "a schema that is none")


def _seconds(value: object) -> None:
    _require(value is None or _is_number(value), "seconds that are no number")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(value))  # type: ignore[arg-type]


def _json(text: str) -> Any:
    _require(len(text) <= MAX_INLINE_BYTES, "JSON that is too large")
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise BrokenFrame(f"{name} in JSON")
