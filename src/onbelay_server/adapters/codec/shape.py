"""How a dataclass of the domain lies in a message of the wire contract.

The message's descriptor is the plan: names are equal but for times and durations, which are
integers in microseconds in the domain. What does not fit is found when the shape is made, at
import, not when the first such event is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from onbelay_server.domain.event import BudgetDimension, MessageRole, StepError
from onbelay_server.domain.run import RunError
from onbelay_server.domain.state import (
    ApprovalKind,
    Decision,
    FailureReason,
    LogLevel,
    Risk,
    RunState,
    StepKind,
)

type_of_enum: dict[str, type[StrEnum]] = {
    "ApprovalDecision": Decision,
    "ApprovalKind": ApprovalKind,
    "BudgetDimension": BudgetDimension,
    "LogLevel": LogLevel,
    "MessageRole": MessageRole,
    "Risk": Risk,
    "RunFailureReason": FailureReason,
    "RunState": RunState,
    "StepKind": StepKind,
}
"""The domain's enum for each enum of the contract that events use."""

_part_types: dict[str, type[Any]] = {"RunError": RunError, "StepError": StepError}

Convert = Callable[[Any], Any]


class UnknownNumber(ValueError):
    """An enum number that this version has no name for."""


def enum_prefix(descriptor: EnumDescriptor) -> str:
    """What every value's name begins with: `RUN_STATE_` for RunState."""
    zero: str = descriptor.values_by_number[0].name
    return zero.removesuffix("UNSPECIFIED")


def number_of(descriptor: EnumDescriptor) -> dict[StrEnum, int]:
    """The number of each member of the domain's enum. Raises KeyError where one is missing."""
    prefix = enum_prefix(descriptor)
    return {
        member: descriptor.values_by_name[prefix + member.value].number
        for member in type_of_enum[descriptor.name]
    }


def domain_name(field: FieldDescriptor) -> str:
    """The attribute that holds a field's value in the domain."""
    name: str = field.name
    kind = field.message_type.full_name if field.message_type else ""
    if kind == "google.protobuf.Timestamp":
        return name.removesuffix("_time").removesuffix("_at") + "_us"
    if kind == "google.protobuf.Duration":
        return name + "_us"
    return name


def microseconds(value: Timestamp | Duration) -> int:
    """Microseconds since the epoch, or of the duration; finer parts are cut off."""
    return value.seconds * 1_000_000 + value.nanos // 1_000


def to_timestamp(value_us: int) -> Timestamp:
    seconds, rest_us = divmod(value_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest_us * 1_000)


def to_duration(value_us: int) -> Duration:
    """Raises ValueError for a negative duration: nothing here lasts less than nothing."""
    if value_us < 0:
        raise ValueError("a duration is negative")
    seconds, rest_us = divmod(value_us, 1_000_000)
    return Duration(seconds=seconds, nanos=rest_us * 1_000)


@dataclasses.dataclass(frozen=True, slots=True)
class FieldShape:
    """One field: its name on the wire, its attribute, and how a value goes each way."""

    name: str
    attribute: str
    has_presence: bool
    encode: Convert | None
    decode: Convert | None


class Shape:
    """Turns values of one dataclass into messages of one type and back."""

    def __init__(self, value_type: type[Any], descriptor: Descriptor) -> None:
        """Raises TypeError where dataclass and message do not have the same fields."""
        self._value_type = value_type
        self._message_type = GetMessageClass(descriptor)
        self.fields = tuple(_field_shape(field) for field in descriptor.fields)
        names = {field.name for field in dataclasses.fields(value_type)}
        expected = {field.attribute for field in self.fields}
        if names != expected:
            raise TypeError(f"{value_type.__name__} differs in {sorted(names ^ expected)}")
        self._out = tuple((field.name, field.attribute, field.encode) for field in self.fields)

    def to_message(self, value: Any) -> Message:
        """Raises ValueError where a value does not fit its field."""
        given: dict[str, Any] = {}
        for name, attribute, encode in self._out:
            item = getattr(value, attribute)
            if item is not None:
                given[name] = item if encode is None else encode(item)
        return self._message_type(**given)

    def from_message(self, message: Message) -> Any:
        """Raises UnknownNumber where an enum holds a number this version does not know."""
        given: dict[str, Any] = {}
        for field in self.fields:
            if field.has_presence and not message.HasField(field.name):
                given[field.attribute] = None
                continue
            item = getattr(message, field.name)
            given[field.attribute] = item if field.decode is None else field.decode(item)
        return self._value_type(**given)


def _field_shape(field: FieldDescriptor) -> FieldShape:
    encode, decode = _converters(field)
    return FieldShape(
        name=field.name,
        attribute=domain_name(field),
        has_presence=field.has_presence,
        encode=encode,
        decode=decode,
    )


def _converters(field: FieldDescriptor) -> tuple[Convert | None, Convert | None]:
    if field.enum_type is not None:
        numbers = number_of(field.enum_type)
        members = {number: member for member, number in numbers.items()}

        def to_member(number: int) -> StrEnum:
            member = members.get(number)
            if member is None:
                raise UnknownNumber(number)
            return member

        return numbers.__getitem__, to_member
    if field.message_type is None:
        return (None, tuple) if field.is_repeated else (None, None)
    if field.message_type.full_name == "google.protobuf.Timestamp":
        return to_timestamp, microseconds
    if field.message_type.full_name == "google.protobuf.Duration":
        return to_duration, microseconds
    part = Shape(_part_types[field.message_type.name], field.message_type)
    return part.to_message, part.from_message
