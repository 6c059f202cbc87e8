"""Times, durations, JSON texts, digests and page tokens of the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from onbelay.v1 import run_request_pb2
from onbelay_server.domain.error import InvalidArgument
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.store import Place
from onbelay_server.transport.grpc.page_token import PageTokens, page_size
from onbelay_server.transport.grpc.wire import (
    from_duration,
    from_timestamp,
    parse_json,
    request_digest,
    struct_json,
    to_duration,
    to_optional_timestamp,
    to_timestamp,
)

ADA = Principal(tenant="acme", id="user:ada", is_person=True, scopes=frozenset())
BOB = Principal(tenant="acme", id="user:bob", is_person=True, scopes=frozenset())
EVE = Principal(tenant="rival", id="user:ada", is_person=True, scopes=frozenset())


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_times_survive_the_wire(time_us: int) -> None:
    assert from_timestamp(to_timestamp(time_us), "t") == time_us


def test_times_outside_of_the_calendar_are_refused() -> None:
    assert to_optional_timestamp(None) is None
    for value in (
        Timestamp(seconds=253_402_300_800),
        Timestamp(seconds=-62_135_596_801),
        Timestamp(seconds=2**62),
        Timestamp(nanos=-1),
        Timestamp(nanos=1_000_000_000),
    ):
        with pytest.raises(InvalidArgument) as problem:
            from_timestamp(value, "since")
        assert problem.value.fields[0].field == "since"


@given(st.integers(-(10**12), 10**12))
def test_durations_survive_the_wire(duration_us: int) -> None:
    value = to_duration(duration_us / 1e6)
    found = from_duration(value, "d", minimum_seconds=-1e7, maximum_seconds=1e7)
    assert round(found * 1e6) == duration_us


@pytest.mark.parametrize(
    "value",
    [
        Duration(seconds=-5),
        Duration(seconds=2**62),
        Duration(seconds=51),
        Duration(seconds=1, nanos=-1),
        Duration(nanos=2_000_000_000),
    ],
)
def test_durations_outside_of_their_limits_are_refused(value: Duration) -> None:
    with pytest.raises(InvalidArgument):
        from_duration(value, "timeout", maximum_seconds=50)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "1 2",
        "\ufeff{}",
        "[NaN]",
        "[Infinity]",
        "-Infinity",
        "1e400",
        "[-1e400]",
        '{"a":1,"a":1}',
        '{"a":{"b":1,"c":2,"b":3}}',
        "9" * 5000,
        "[" * 100_000,
        "[" * 65 + "]" * 65,
        '{"a":' * 65 + "1" + "}" * 65,
        '"\\ud800"',
        '{"\\udfff":1}',
        '"\x01"',
        "'a'",
        "01",
        "nul",
        "[1,]",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_json_that_readers_disagree_about_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument) as problem:
        parse_json(text, "input_json")
    assert problem.value.reason == "INVALID_JSON"
    assert problem.value.fields[0].field == "input_json"


def test_json_is_read_without_loss() -> None:
    number = 123456789012345678901234567890
    assert parse_json(f'{{"n":{number}}}', "x") == {"n": number}
    assert parse_json('"\\ud83d\\ude00"', "x") == "😀"
    assert parse_json("[" * 64 + "]" * 64, "x")
    assert parse_json(" null ", "x") is None
    with pytest.raises(InvalidArgument, match="8 bytes"):
        parse_json('"äääää"', "x", max_bytes=8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_a_struct_becomes_the_json_it_stands_for(value: Any) -> None:
    struct = Struct()
    struct.update({"value": value})
    assert json.loads(struct_json(struct, "input")) == {"value": value}


@pytest.mark.parametrize(
    "number", [float("inf"), float("-inf"), float("nan"), 2.0**53, -(2.0**53), 1e300]
)
def test_a_struct_refuses_numbers_it_cannot_hold(number: float) -> None:
    struct = Struct()
    struct.update({"a": [{"b": number}]})
    with pytest.raises(InvalidArgument) as problem:
        struct_json(struct, "input")
    assert problem.value.fields[0].field == "input.a[0].b"


def test_a_struct_value_without_a_kind_is_refused() -> None:
    struct = Struct()
    struct.fields["a"].SetInParent()
    with pytest.raises(InvalidArgument, match="no value"):
        struct_json(struct, "input")


def start(**fields: object) -> run_request_pb2.StartRunRequest:
    return run_request_pb2.StartRunRequest(**fields)  # type: ignore[arg-type]


def test_a_digest_is_of_what_a_request_says_without_its_id() -> None:
    labels = {str(number): "v" for number in range(20)}
    backwards = dict(reversed(labels.items()))
    one = start(agent="a", labels=labels, request_id="1")
    assert request_digest(one) == request_digest(start(agent="a", labels=backwards, request_id="2"))
    assert request_digest(one) != request_digest(start(agent="b", labels=labels, request_id="1"))
    assert request_digest(start(agent="a")) != request_digest(start(agent="a", agent_revision=0))
    unknown = run_request_pb2.StartRunRequest.FromString(
        one.SerializeToString() + b"\xfa\x7f\x03abc"
    )
    assert request_digest(unknown) == request_digest(one)


def test_a_digest_of_huge_doubles_exists() -> None:
    requests = []
    for number in (1e300, 2e300):
        request = start(agent="a")
        request.input.update({"n": number})
        requests.append(request_digest(request))
    assert len(set(requests)) == 2


def listing(**fields: object) -> run_request_pb2.ListRunsRequest:
    return run_request_pb2.ListRunsRequest(**fields)  # type: ignore[arg-type]


def filtered(label: str, **fields: object) -> run_request_pb2.ListRunsRequest:
    request = listing(**fields)
    request.filter.labels["team"] = label
    return request


def test_a_page_token_continues_its_own_query_only() -> None:
    tokens = PageTokens(b"k" * 32)
    place = Place(create_us=123, id="run_x")
    token = tokens.issue(filtered("a", page_size=5), ADA, place)
    assert tokens.read(filtered("a", page_token=token, page_size=9), ADA) == place
    assert tokens.read(filtered("a"), ADA) is None
    refused = [
        (tokens, filtered("b", page_token=token), ADA),
        (tokens, filtered("a", page_token=token), BOB),
        (tokens, filtered("a", page_token=token), EVE),
        (PageTokens(b"l" * 32), filtered("a", page_token=token), ADA),
        (tokens, filtered("a", page_token=token[:-4]), ADA),
        (tokens, filtered("a", page_token=("A" if token[0] != "A" else "B") + token[1:]), ADA),
        (tokens, filtered("a", page_token="nonsense!"), ADA),
        (tokens, filtered("a", page_token="ä"), ADA),
        (tokens, filtered("a", page_token="AAAA"), ADA),
    ]
    for reader, request, caller in refused:
        with pytest.raises(InvalidArgument) as problem:
            reader.read(request, caller)
        assert problem.value.reason == "PAGE_TOKEN_INVALID"
        assert problem.value.fields[0].field == "page_token"


def test_a_page_token_needs_a_real_key() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PageTokens(b"short")


def test_page_sizes_are_kept_in_bounds() -> None:
    assert [page_size(asked) for asked in (0, 1, 1000, 1001, 2**32 - 1)] == [
        50,
        1,
        1000,
        1000,
        1000,
    ]
