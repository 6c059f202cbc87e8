"""Values as the wire carries them: times, durations, JSON texts and the digests of requests.

Every reader here takes the name of the field it reads and raises InvalidArgument for it.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import NoReturn, TypeAlias

import rfc8785
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from onbelay_server.domain.error import InvalidArgument

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_JSON_BYTES = 1_000_000
MAX_JSON_DEPTH = 64

_MIN_SECONDS = -62_135_596_800  # 0001-01-01T00:00:00Z
_MAX_SECONDS = 253_402_300_799  # 9999-12-31T23:59:59Z
_MAX_SAFE_INTEGER = 2**53 - 1


# Times


def to_timestamp(time_us: int) -> Timestamp:
    """Microseconds since the epoch as a Timestamp."""
    seconds, rest_us = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest_us * 1000)


def to_optional_timestamp(time_us: int | None) -> Timestamp | None:
    """As `to_timestamp`; None stays None, which leaves a message field absent."""
    return None if time_us is None else to_timestamp(time_us)


def from_timestamp(value: Timestamp, field: str) -> int:
    """Microseconds since the epoch, finer parts cut off. Years 0001 to 9999 only."""
    if not _MIN_SECONDS <= value.seconds <= _MAX_SECONDS or not 0 <= value.nanos <= 999_999_999:
        raise InvalidArgument.of(field, "must be a time of the years 0001 to 9999")
    return value.seconds * 1_000_000 + value.nanos // 1000


def to_duration(seconds: float) -> Duration:
    """Seconds as a Duration, rounded to microseconds."""
    whole, rest_us = divmod(round(seconds * 1_000_000), 1_000_000)
    if whole < 0 and rest_us:
        whole, rest_us = whole + 1, rest_us - 1_000_000
    return Duration(seconds=whole, nanos=rest_us * 1000)


def from_duration(
    value: Duration, field: str, *, minimum_seconds: float = 0.0, maximum_seconds: float
) -> float:
    """Seconds, refused outside of the two limits (both are allowed values)."""
    signs_differ = (value.seconds > 0 > value.nanos) or (value.seconds < 0 < value.nanos)
    seconds = value.seconds + value.nanos / 1e9
    if (
        signs_differ
        or abs(value.nanos) > 999_999_999
        or not minimum_seconds <= seconds <= maximum_seconds
    ):
        raise InvalidArgument.of(
            field, f"must be between {minimum_seconds:g} and {maximum_seconds:g} seconds"
        )
    return seconds


# JSON


def parse_json(
    text: str, field: str, *, max_bytes: int = MAX_JSON_BYTES, max_depth: int = MAX_JSON_DEPTH
) -> Json:
    """The value of a `*_json` field, as every JSON reader in every language would understand it.

    Integers keep all their digits. Refused: more than `max_bytes` of UTF-8, more than `max_depth`
    nested arrays and objects, an object that has a key twice, NaN and infinities (also as 1e400),
    integers of thousands of digits, half surrogate pairs, a byte order mark, anything behind the
    value.
    """
    if len(text) > max_bytes or len(text.encode()) > max_bytes:
        raise InvalidArgument.of(field, f"must not exceed {max_bytes} bytes")
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_unique_pairs,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except _Unacceptable as problem:
        raise _invalid_json(field, problem.text) from None
    except json.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise _invalid_json(field, f"is not JSON: see {where}") from None
    except RecursionError:
        raise _invalid_json(field, f"is nested deeper than {max_depth}") from None
    except ValueError:
        # What is left of the decoder's refusals: an integer past the interpreter's digit limit.
        raise _invalid_json(field, "has an integer with too many digits") from None
    _check_shape(value, field, max_depth, surrogates="\\u" in text)
    return value


def struct_json(value: Struct, field: str) -> str:
    """A Struct as compact JSON text with sorted keys (a Struct keeps no order).

    Its numbers are doubles: infinities, NaN and integers that a double cannot hold exactly are
    refused, because what would be stored is not what the caller meant.
    """
    return _compact({key: _plain(item, f"{field}.{key}", 1) for key, item in value.fields.items()})


def value_json(value: Value, field: str) -> str:
    """A Value likewise, which need not be an object."""
    return _compact(_plain(value, field, 1))


def _compact(value: Json) -> str:
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


class _Unacceptable(Exception):
    """Raised in the decoder's hooks, told apart from the errors of the decoder itself."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _invalid_json(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.of(field, description, reason="INVALID_JSON")


def _unique_pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Unacceptable("has an object with the same key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Unacceptable("has a number that is too large")
    return number


def _refuse_constant(_name: str) -> NoReturn:
    raise _Unacceptable("has NaN or an infinity")


def _check_shape(value: Json, field: str, max_depth: int, *, surrogates: bool) -> None:
    """Walk without recursion: depth and, where escapes may have made them, half surrogates."""
    stack: list[tuple[Json, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            if surrogates and any("\ud800" <= character <= "\udfff" for character in item):
                raise _invalid_json(field, "has half of a surrogate pair")
        elif isinstance(item, dict | list):
            if depth >= max_depth:
                raise _invalid_json(field, f"is nested deeper than {max_depth}")
            if isinstance(item, dict):
                if surrogates:
                    stack.extend((key, depth) for key in item)
                stack.extend((inner, depth + 1) for inner in item.values())
            else:
                stack.extend((inner, depth + 1) for inner in item)


def _plain(value: Value, field: str, depth: int) -> Json:
    if depth > MAX_JSON_DEPTH:
        raise InvalidArgument.of(field, f"is nested deeper than {MAX_JSON_DEPTH}")
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _exact(value.number_value, field)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        fields = value.struct_value.fields
        return {key: _plain(item, f"{field}.{key}", depth + 1) for key, item in fields.items()}
    if kind == "list_value":
        items: ListValue = value.list_value
        return [_plain(v, f"{field}[{i}]", depth + 1) for i, v in enumerate(items.values)]
    if kind == "null_value":
        return None
    raise InvalidArgument.of(field, "has no value; null must be said")


def _exact(number: float, field: str) -> int | float:
    if not math.isfinite(number):
        raise InvalidArgument.of(field, "must be a finite number")
    if not number.is_integer():
        return number
    if abs(number) > _MAX_SAFE_INTEGER:
        raise InvalidArgument.of(field, "is past 2^53 and would lose digits: send it as JSON text")
    return int(number)


# Digests


def request_digest(request: Message, *, without: str = "request_id") -> str:
    """SHA-256, in hex, over the RFC 8785 form of the request without one field.

    Two requests have the same digest when they say the same, whichever client encoded them. Fields
    that this version does not know are no part of it. Raises InvalidArgument for a field that holds
    what JSON cannot: NaN or an infinity in a Struct, a time or a mask that is none.
    """
    try:
        body = MessageToDict(request, preserving_proto_field_name=True)
    except SerializeToJsonError:
        raise InvalidArgument.of(
            _unwritable(request), "has a value that JSON cannot hold"
        ) from None
    body.pop(without, None)
    try:
        canonical = rfc8785.dumps(body)
    except rfc8785.IntegerDomainError:
        # A double like 1e300 reads back as an integer that RFC 8785 cannot write as one.
        canonical = rfc8785.dumps(_as_doubles(body))
    return hashlib.sha256(canonical).hexdigest()


def _unwritable(request: Message) -> str:
    for field, _ in request.ListFields():
        alone = type(request)()
        alone.CopyFrom(request)
        for other, _ in request.ListFields():
            if other is not field:
                alone.ClearField(other.name)
        try:
            MessageToDict(alone)
        except SerializeToJsonError:
            return field.name
    return ""


def _as_doubles(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _as_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_doubles(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_SAFE_INTEGER:
        return float(value)
    return value
