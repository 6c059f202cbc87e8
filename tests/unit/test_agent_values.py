from __future__ import annotations

import datetime
import enum
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from onbelay_agent import ValueNotStorable
from onbelay_agent.values import adapter_of, canonical, decode, encode, fingerprint_of


class Colour(enum.Enum):
    RED = "red"


class Row(BaseModel):
    name: str
    when: datetime.datetime
    tags: set[str] = set()


@dataclass(frozen=True)
class Point:
    x: float
    y: int


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -3,
        10**30,
        1.5,
        "",
        "ü\u0000\U0001f600",
        [],
        [1, "a", None],
        {"b": {"a": [1]}},
    ],
)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    assert decode(encode(value)) == value


def test_a_number_that_cannot_be_read_again_is_refused() -> None:
    with pytest.raises(ValueNotStorable):
        encode(10**5000)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        [1.0, float("-inf")],
        {1: "a"},
        {"a": {None: 1}},
        {"a"},
        b"bytes",
        object(),
        datetime.datetime.now(datetime.UTC),
        Point(1.0, 2),
        "\ud800",
        LOOP,
    ],
)
def test_what_is_no_plain_json_is_refused(value: object) -> None:
    with pytest.raises(ValueNotStorable):
        encode(value)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (Point, Point(1.5, 2)),
        (Row, Row(name="a", when=datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), tags={"x"})),
        (tuple[int, str], (1, "a")),
        (dict[int, str], {1: "a"}),
        (set[int], {1, 2}),
        (bytes, b"\xff\x00"),
        (uuid.UUID, uuid.UUID(int=5)),
        (Colour, Colour.RED),
        (list[Point] | None, [Point(0.0, 1)]),
    ],
)
def test_typed_values_come_back_as_their_type(wanted: Any, value: object) -> None:
    adapter = adapter_of(wanted)
    back = decode(encode(value, adapter), adapter)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("wanted", "value"),
    [(int, "one"), (float, float("nan")), (Point, {"x": 1}), (list[int], [1, "a"])],
)
def test_values_that_do_not_fit_their_type_are_refused(wanted: Any, value: object) -> None:
    adapter = adapter_of(wanted)
    with pytest.raises(ValueNotStorable):
        decode(encode(value, adapter), adapter)


def test_canonical_text_is_the_same_for_equal_values() -> None:
    assert canonical({"b": 1, "a": [1, {"d": 2, "c": 3}]}) == '{"a":[1,{"c":3,"d":2}],"b":1}'


def test_arguments_without_json_count_with_their_type() -> None:
    assert fingerprint_of((1, "a")) == fingerprint_of((1, "a"))
    assert fingerprint_of((1,)) != fingerprint_of((2,))
    assert fingerprint_of((object(),)) == fingerprint_of((object(),))
    assert fingerprint_of(({"a", "b"},)) == fingerprint_of(({"b", "a"},))
    assert fingerprint_of((LOOP,)) == fingerprint_of((LOOP,))
