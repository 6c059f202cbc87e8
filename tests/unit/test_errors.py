"""The tables of errors agree: classes, reasons, the contract's enum, the page, the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

import onbelay_server
from onbelay.v1 import error_reason_pb2
from onbelay_server.domain import error
from onbelay_server.domain.error import DomainError, FieldViolation, InvalidArgument, NotFound
from onbelay_server.transport.grpc.errors import (
    CODES,
    InternalFault,
    ServerDeadline,
    code_of,
    to_wire,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
PROTO = (ROOT / "proto" / "onbelay" / "v1" / "error_reason.proto").read_text(encoding="utf-8")
PREFIX = "ERROR_REASON_"
COMMENTED = re.findall(r"((?: *//.*\n)+) *ERROR_REASON_(\w+) = [1-9]", PROTO)
"""What the contract says of each reason. A comment begins with the code, `Any call, ` before it."""
ERROR_MODULES = {"onbelay_server.domain.error", "onbelay_server.transport.grpc.errors"}


def classes(kind: type[DomainError] = DomainError) -> Iterator[type[DomainError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from classes(child)


def code_said(comment: str) -> grpc.StatusCode:
    text = " ".join(comment.replace("//", " ").split())
    found = re.match(r"(?:Any call, )?([A-Z_]+)(?: with \w+)?:", text)
    assert found, text
    return grpc.StatusCode[found.group(1)]


REASONS = {name: code_said(comment) for comment, name in COMMENTED}


def test_the_contract_says_the_code_of_each_reason() -> None:
    known = {name.removeprefix(PREFIX) for name in dict(error_reason_pb2.ErrorReason.items())}
    assert known - {"UNSPECIFIED"} == set(REASONS)


def test_the_page_lists_every_reason_with_its_code() -> None:
    said = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", PAGE, flags=re.MULTILINE))
    assert said == {reason: code.name for reason, code in REASONS.items()}


def test_the_page_lists_every_class_with_its_code() -> None:
    said = dict(re.findall(r"^\| `(\w*[a-z]\w*)` \| ([A-Z_]+) \|", PAGE, flags=re.MULTILINE))
    assert said == {kind.__name__: code.name for kind, code in CODES.items()}


def test_each_class_has_a_reason_that_fits_its_code() -> None:
    for kind in classes():
        code = next(CODES[found] for found in kind.__mro__ if found in CODES)
        assert REASONS[kind.reason] is code, kind


def raised_reasons() -> Iterator[tuple[str, str, str]]:
    """(place, class, reason) of every `SomeError(..., reason="X")` in the source."""
    source = Path(next(iter(onbelay_server.__path__)))
    for path in sorted(source.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ours = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in ERROR_MODULES
            for alias in node.names
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant):
                    called = node.func
                    if isinstance(called, ast.Attribute) and called.attr == "of":
                        called = called.value
                    name = called.attr if isinstance(called, ast.Attribute) else ""
                    name = called.id if isinstance(called, ast.Name) else name
                    if name in ours:
                        place = f"{path.relative_to(source)}:{node.lineno}"
                        yield place, name, str(keyword.value.value)


def test_every_reason_in_the_source_is_known_and_fits_the_class_it_is_raised_with() -> None:
    kinds = {kind.__name__: kind for kind in classes()}
    wrong = [
        (place, name, reason)
        for place, name, reason in raised_reasons()
        if name in kinds and REASONS.get(reason) is not code_of_class(kinds[name])
    ]
    assert wrong == []


def code_of_class(kind: type[DomainError]) -> grpc.StatusCode:
    return next(CODES[found] for found in kind.__mro__ if found in CODES)


def details(refusal: DomainError) -> dict[str, object]:
    status = status_pb2.Status.FromString(to_wire(refusal).details)
    found = dict[str, object]()
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        assert name not in found
        message = getattr(error_details_pb2, name)()
        packed.Unpack(message)
        found[name] = message
    return found


def test_a_new_class_is_mapped_by_its_ancestor() -> None:
    class Hidden(NotFound):
        """A kind of NotFound that nobody listed."""

    assert code_of(Hidden("it is not there")) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("kind", [kind for kind in CODES if kind not in (DomainError,)])
def test_every_refusal_has_exactly_one_error_info(kind: type[DomainError]) -> None:
    refusal = InternalFault("1") if kind is InternalFault else kind("a text")
    found = details(refusal)
    info = found["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (kind.reason, "onbelay.dev")


@pytest.mark.parametrize(
    ("refusal", "seconds"),
    [
        (error.Unavailable("away"), 1.0),
        (error.Unavailable("away", retry_after_seconds=0.25), 0.25),
        (error.Lost("lost"), 1.0),
        (error.Aborted("first is in flight"), 1.0),
        (error.Aborted("changed", reason="ETAG_MISMATCH"), None),
        (error.ResourceExhausted("full"), None),
        (error.ResourceExhausted("slow down", reason="RATE_LIMITED"), 1.0),
        (error.FailedPrecondition("ended"), None),
        (ServerDeadline("late"), None),
    ],
)
def test_retry_info_is_sent_where_trying_again_helps(
    refusal: DomainError, seconds: float | None
) -> None:
    retry = details(refusal).get("RetryInfo")
    if seconds is None:
        assert retry is None
    else:
        assert isinstance(retry, error_details_pb2.RetryInfo)
        assert retry.retry_delay.ToTimedelta().total_seconds() == seconds


def test_wrong_fields_are_named_and_the_status_stays_small() -> None:
    fields = [FieldViolation(f"labels[{'k' * 900}]", "d" * 900) for _ in range(300)]
    wire = to_wire(InvalidArgument("t" * 9000, *fields, metadata={"key": "v" * 9000}))
    assert len(wire.details) < 6_000
    assert len(wire.text) <= 500
    bad = details(InvalidArgument("two", FieldViolation("a", "x"), FieldViolation("b", "y")))
    request = bad["BadRequest"]
    assert isinstance(request, error_details_pb2.BadRequest)
    assert [found.field for found in request.field_violations] == ["a", "b"]


def test_an_internal_fault_has_the_fixed_sentence_and_its_id() -> None:
    wire = to_wire(InternalFault("abc"))
    assert wire.code is grpc.StatusCode.INTERNAL
    assert wire.text == "The server failed; it logged the details under the error id."
