"""From bytes to a request that keeps the contract's limits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from protovalidate import FieldPathPb, Validator, Violation

from onbelay_server.domain.error import FieldViolation, InvalidArgument

M = TypeVar("M", bound=Message)

_MAX_NAMED = 3


def parse(request_type: type[M], data: bytes) -> M:
    """The message in `data`. Raises InvalidArgument (MALFORMED_REQUEST) for anything else: wrong
    wire types, cut or nested too deep, text that is not UTF-8. Unknown fields are kept aside."""
    try:
        return request_type.FromString(data)
    except DecodeError:
        raise InvalidArgument(
            f"the request is not a {request_type.DESCRIPTOR.full_name}",
            reason="MALFORMED_REQUEST",
        ) from None


class RequestCheck:
    """The annotations of the contract, compiled once per message type."""

    def __init__(self, request_types: Iterable[type[Message]] = ()) -> None:
        """Compiles the rules of `request_types` now. Raises protovalidate's CompilationError for a
        rule that cannot be: the server does not start with a contract it cannot check."""
        self._validator = Validator()
        for request_type in request_types:
            self._validator.collect_violations(request_type())

    def read(self, request_type: type[M], data: bytes) -> M:
        """Parse and check. Raises InvalidArgument with every wrong field."""
        request = parse(request_type, data)
        found = [
            _field_violation(item, request) for item in self._validator.collect_violations(request)
        ]
        if b"\0" in data:
            # No database column and no terminal takes it; no rule has to remember that.
            found.extend(
                FieldViolation(path, "must not contain the character U+0000")
                for path in _paths_with_nul(request, "")
            )
        if found:
            named = "; ".join(f"{item.field}: {item.description}" for item in found[:_MAX_NAMED])
            more = len(found) - _MAX_NAMED
            raise InvalidArgument(f"{named} (and {more} more)" if more > 0 else named, *found)
        return request


def _field_violation(violation: Violation, request: Message) -> FieldViolation:
    found = violation.proto
    field = _path(found.field) or _named_by(found.rule_id, request)
    return FieldViolation(field, found.message or f"breaks {found.rule_id}")


def _named_by(rule_id: str, request: Message) -> str:
    """The field that a rule over the whole message is about: its id ends with it."""
    name = rule_id.rpartition(".")[2]
    return name if name in request.DESCRIPTOR.fields_by_name else ""


def _path(field: FieldPathPb | None) -> str:
    if field is None:
        return ""
    steps = []
    for element in field.elements:
        subscript = element.subscript
        step = element.field_name
        if subscript is not None:
            key = subscript.value
            step += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
        steps.append(step)
    return ".".join(steps)


def _paths_with_nul(message: Message, prefix: str) -> list[str]:
    found: list[str] = []
    for field, value in message.ListFields():
        path = prefix + field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found.extend(_map_paths(field, value, path))
        elif field.type == FieldDescriptor.TYPE_STRING:
            texts = value if field.is_repeated else [value]
            found.extend(path for text in texts if "\0" in text)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            items = value if field.is_repeated else [value]
            for item in items:
                found.extend(_paths_with_nul(item, path + "."))
    return found


def _map_paths(field: FieldDescriptor, value: object, path: str) -> list[str]:
    found: list[str] = []
    for key, item in value.items():  # type: ignore[attr-defined]
        if isinstance(key, str) and "\0" in key:
            found.append(path)
        if isinstance(item, str) and "\0" in item:
            found.append(path)
        elif isinstance(item, Message):
            found.extend(_paths_with_nul(item, path + "."))
    return found
