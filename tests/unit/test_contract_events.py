"""The domain's vocabulary and the wire contract stay in step, field by field."""

from __future__ import annotations

import dataclasses

import pytest

from onbelay.v1 import approval_pb2, budget_pb2, output_event_pb2, run_pb2, step_pb2, tool_pb2
from onbelay.v1.event_pb2 import EventKind, RunEvent
from onbelay_server.adapters.codec.shape import enum_prefix, type_of_enum
from onbelay_server.domain.event import KINDS, StepError
from onbelay_server.domain.run import RunError
from onbelay_server.domain.state import ApprovalState

PAYLOADS = {
    field.message_type.name: field
    for field in RunEvent.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}
MODULES = (approval_pb2, budget_pb2, output_event_pb2, run_pb2, step_pb2, tool_pb2)
ENUMS = {
    name: descriptor
    for module in MODULES
    for name, descriptor in module.DESCRIPTOR.enum_types_by_name.items()
}

# Renamed on the way: a time or duration is a number of microseconds in the domain.
RENAMED = {
    "due_time": "due_us",
    "expire_time": "expire_us",
    "effective_at": "effective_us",
    "duration": "duration_us",
}


def test_every_payload_has_its_class_and_every_class_its_payload() -> None:
    assert set(PAYLOADS) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_payload_has_the_fields_of_its_class(name: str) -> None:
    descriptor = PAYLOADS[name].message_type
    assert descriptor is not None
    wire = {RENAMED.get(field.name, field.name) for field in descriptor.fields}
    assert {field.name for field in dataclasses.fields(KINDS[name])} == wire


@pytest.mark.parametrize("name", KINDS)
def test_a_choice_of_the_contract_is_a_choice_of_the_class(name: str) -> None:
    descriptor = PAYLOADS[name].message_type
    assert descriptor is not None
    chosen = {
        field.name
        for oneof in descriptor.oneofs
        for field in oneof.fields
        # An `optional` field is a choice of one on the wire.
        if len(oneof.fields) > 1
    }
    assert set(getattr(KINDS[name], "ONE_OF", ())) == chosen


@pytest.mark.parametrize(
    ("part", "descriptor"),
    [(StepError, step_pb2.StepError.DESCRIPTOR), (RunError, run_pb2.RunError.DESCRIPTOR)],
)
def test_a_part_has_the_fields_of_its_class(part: type, descriptor: object) -> None:
    wire = {field.name for field in descriptor.fields}  # type: ignore[attr-defined]
    assert {field.name for field in dataclasses.fields(part)} == wire


@pytest.mark.parametrize("name", [*type_of_enum, "ApprovalState"])
def test_an_enum_has_the_members_of_its_class(name: str) -> None:
    descriptor = ENUMS[name]
    prefix = enum_prefix(descriptor)
    wire = {value.name.removeprefix(prefix) for value in descriptor.values if value.number}
    members = ApprovalState if name == "ApprovalState" else type_of_enum[name]
    assert {member.value for member in members} == wire


def test_the_kinds_to_filter_by_are_the_payloads() -> None:
    descriptor = EventKind.DESCRIPTOR
    wire = {
        value.name.removeprefix("EVENT_KIND_").lower(): value.number
        for value in descriptor.values
        if value.number
    }
    assert wire == {field.name: field.number for field in PAYLOADS.values()}


def test_the_envelope_keeps_its_numbers() -> None:
    numbers = {field.name: field.number for field in RunEvent.DESCRIPTOR.fields}
    assert [numbers[name] for name in ("run_id", "sequence", "time", "epoch", "step_id")] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert min(field.number for field in PAYLOADS.values()) == 10
