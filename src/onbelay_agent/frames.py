"""Frames as JSON: one object a line, the frame's snake_case name its only key.

Fields that hold their default are left out; unknown keys are ignored, so that either side may be
newer. Strings of JSON stay strings.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import re
import types
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from onbelay_agent import protocol
from onbelay_agent.protocol import FromHost, Recorded, Start, ToHost

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBlob:
    """A piece of a blob, from the child: kept once the last piece is there and the hash agrees."""

    sha256: str
    offset: int
    content: bytes
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GetBlob:
    """The child asks for a blob."""

    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A piece of a blob, to the child. `missing`: the host does not hold it."""

    sha256: str
    offset: int = 0
    content: bytes = b""
    last: bool = True
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobKept:
    """The host has kept a whole blob."""

    sha256: str


Frame = ToHost | FromHost | PutBlob | GetBlob | Blob | BlobKept


class BrokenFrame(ValueError):
    """A line that is no frame."""


def encode_frame(frame: Frame) -> bytes:
    """One line, with its newline. A Start carries no journal: see `encode_start`."""
    if isinstance(frame, Start) and frame.journal:
        raise ValueError("the journal follows Start record by record")
    plain = {_name(cast(Hashable, type(frame))): to_plain(frame)}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def encode_start(start: Start) -> Iterator[bytes]:
    """The lines of a Start: itself, then each record of its journal as Recorded."""
    yield encode_frame(dataclasses.replace(start, journal=()))
    for record in start.journal:
        yield encode_frame(Recorded(record=record))


def decode_frame(line: bytes) -> Frame:
    """The frame of a line. Raises BrokenFrame."""
    try:
        plain = json.loads(line)
        ((name, fields),) = plain.items()
        return from_plain(_FRAMES[name], fields)  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenFrame(f"not a frame: {type(error).__name__}: {error}") from None


def to_plain(value: Any) -> Any:
    """A dataclass of the protocol as plain JSON, without the fields that hold their default."""
    plain: dict[str, Any] = {}
    for name, default in _defaults(cast(Hashable, type(value))):
        item = getattr(value, name)
        if item is default or (type(item) is type(default) and item == default):
            continue
        if dataclasses.is_dataclass(item):
            item = to_plain(item)
        elif isinstance(item, tuple):
            item = [to_plain(part) if dataclasses.is_dataclass(part) else part for part in item]
        elif isinstance(item, bytes):
            item = base64.b64encode(item).decode()
        elif isinstance(item, Mapping):
            item = dict(item)
        plain[name] = item
    return plain


def from_plain(kind: type[T], plain: Mapping[str, Any]) -> T:
    """The dataclass of plain JSON. Raises TypeError or ValueError for what does not fit."""
    fields: dict[str, Any] = {}
    for name, convert in _converters(cast(Hashable, kind)):
        if name in plain:
            fields[name] = convert(plain[name])
    return kind(**fields)


@functools.cache
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    defaults = []
    for item in dataclasses.fields(kind):
        default: Any = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        defaults.append((item.name, default))
    return tuple(defaults)


@functools.cache
def _converters(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((item.name, _converter(hints[item.name])) for item in dataclasses.fields(kind))


def _converter(wanted: Any) -> Any:
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        inner = [part for part in get_args(wanted) if part is not type(None)]
        convert = _converter(inner[0])
        return lambda value: None if value is None else convert(value)
    if origin is tuple:
        item = _converter(get_args(wanted)[0])
        return lambda value: tuple(item(part) for part in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict
    if dataclasses.is_dataclass(wanted):
        return functools.partial(from_plain, cast(type[Any], wanted))
    if wanted is bytes:
        return functools.partial(base64.b64decode, validate=True)
    if wanted in (str, int, bool):
        return functools.partial(_exactly, wanted)
    return lambda value: value


def _exactly(wanted: type, value: Any) -> Any:
    if type(value) is not wanted:
        raise TypeError(f"expected {wanted.__name__}, found {type(value).__name__}")
    return value


@functools.cache
def _name(kind: Any) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


_FRAMES: dict[str, type[Any]] = {
    _name(kind): kind
    for kind in (
        *get_args(protocol.ToHost),
        *get_args(protocol.FromHost),
        PutBlob,
        GetBlob,
        Blob,
        BlobKept,
    )
}
