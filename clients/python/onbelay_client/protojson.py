"""Messages as protobuf JSON and back, times as datetimes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from google.protobuf.json_format import MessageToDict, Parse, ParseError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

MessageType = TypeVar("MessageType", bound=Message)
ReplyMessage: TypeAlias = Message
"""Any message of the contract."""
TimeMessage: TypeAlias = Timestamp
"""A point in time as the contract carries it."""


def to_json(message: Message, *, indent: int | None = None) -> str:
    """A message's protobuf JSON with nothing added or left out; one line without `indent`."""
    return json.dumps(to_dict(message), indent=indent, ensure_ascii=False)


def to_dict(message: Message) -> dict[str, Any]:
    """A message's protobuf JSON as Python values."""
    return MessageToDict(message)


def from_json(text: str, message: MessageType) -> MessageType:
    """Fill `message` from protobuf JSON and return it; ValueError says what does not fit."""
    try:
        Parse(text, message)
    except ParseError as error:
        raise ValueError(str(error)) from error
    return message


def to_datetime(time: Timestamp) -> datetime:
    """The time with the zone UTC."""
    return time.ToDatetime(tzinfo=UTC)


def json_text(value: Any) -> str:
    """A value as compact JSON text; ValueError or TypeError when JSON cannot hold it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
