"""JSON Schemas that users write, and values checked against them at a bounded cost.

A schema is draft 2020-12 and stands alone: it refers to nothing outside itself. Checking a value is
metered, because a small schema can ask for endless work (references that double, long lists of
alternatives); patterns run on a linear-time engine, because Python's may run for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from onbelay_server.domain.error import FieldViolation, InvalidArgument

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 64 * 1024
MAX_DEPTH = 64
MAX_WORK = 1_000_000
"""Keywords looked at while one value is checked: about two seconds."""
ON_LOOP_WORK = 2_000
"""Of it on the event loop: a few milliseconds."""
ON_LOOP_CHARACTERS = 16_384
"""A longer value or schema is read and checked beside the loop."""
MAX_VIOLATIONS = 10
MAX_TEXT = 300

_ANNOTATIONS = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose content is data, where `$ref` is only a name."""
_work_left: ContextVar[int] = ContextVar("work_left")

Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class TooCostly(ValueError):
    """Checking a value took more work than a schema may ask for."""


def load_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for what is none, NaN and Infinity included."""
    return json.loads(text, parse_constant=_refuse_constant)


def schema_violations(text: str, field: str) -> list[FieldViolation]:
    """What is wrong with a schema given as JSON text; empty for a good one and for no text."""
    if not text:
        return []
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        return [FieldViolation(field, f"larger than {MAX_SCHEMA_BYTES} bytes")]
    try:
        schema = load_json(text)
        if not isinstance(schema, dict):
            return [FieldViolation(field, "a JSON Schema here is a JSON object")]
        _check_content(schema)
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "".join(f"/{part}" for part in error.absolute_path)
        return [
            FieldViolation(field, _short(f"{place}: {error.message}" if place else error.message))
        ]
    except (ValueError, RecursionError) as error:
        return [FieldViolation(field, _short(str(error)) or "not a usable JSON Schema")]
    return []


def value_violations(schema_json: str, value: Any, field: str) -> list[FieldViolation]:
    """Where a value departs from a schema that was checked before: at most MAX_VIOLATIONS places.

    `field` is the request's field; the place within follows as a JSON Pointer. An empty schema text
    accepts everything. A value that costs too much to check is a violation too. May compute for
    seconds: a service calls `departures`.
    """
    if _accepts_everything(schema_json):
        return []
    try:
        return _violations(schema_json, value, field, MAX_WORK)
    except TooCostly as error:
        return [FieldViolation(field, str(error))]


async def departures(schema_json: str, value_json: str, field: str) -> list[FieldViolation]:
    """`value_violations` of a JSON text that was read before, with the loop kept free: what is not
    quick is done in a thread. Small texts do not tell, because a small schema can cost much."""
    if _accepts_everything(schema_json):
        return []
    if max(len(schema_json), len(value_json)) <= ON_LOOP_CHARACTERS:
        try:
            return _violations(schema_json, load_json(value_json), field, ON_LOOP_WORK)
        except TooCostly:
            pass
    return await asyncio.to_thread(
        lambda: value_violations(schema_json, load_json(value_json), field)
    )


async def check_value(schema_json: str, value_json: str, field: str, *, reason: str) -> None:
    """Raise InvalidArgument with every place in which `departures` finds fault."""
    if found := await departures(schema_json, value_json, field):
        text = "; ".join(f"{one.field}: {one.description}" for one in found)
        raise InvalidArgument(text[:1000], *found, reason=reason)


def _accepts_everything(schema_json: str) -> bool:
    return schema_json in ("", "{}")


def _violations(schema_json: str, value: Any, field: str, most_work: int) -> list[FieldViolation]:
    """Raises TooCostly."""
    meter = _work_left.set(most_work)
    try:
        found = islice(_validator(schema_json).iter_errors(value), MAX_VIOLATIONS)
        return [FieldViolation(_place(field, error), _short(error.message)) for error in found]
    except RecursionError:
        return [FieldViolation(field, "the schema refers to itself without end")]
    finally:
        _work_left.reset(meter)


@lru_cache(maxsize=256)
def _validator(schema_json: str) -> Any:
    schema = load_json(schema_json)
    schema.pop("$schema", None)  # A dialect named inside would bring back the unmetered keywords.
    return _METERED(schema, registry=Registry())


def _check_content(schema: dict[str, Any]) -> None:
    """Raises ValueError for what the metaschema allows and this service does not."""
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        raise ValueError(f"$schema: only {DIALECT} is understood")
    own = {key: value for key, value in schema.items() if key != "$schema"}
    registry: Registry[Any] = Registry().with_resource("", DRAFT202012.create_resource(own))
    resolver = registry.resolver("")
    uses: set[str] = set()
    for key, value in _keywords(own, 0):
        uses.add(key)
        if key in ("$id", "$schema") and isinstance(value, str):
            raise ValueError(f"{key}: not allowed inside a schema")
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            if not value.startswith("#"):
                raise ValueError(f"{key}: {value!r} is outside this schema; only #… is followed")
            try:
                resolver.lookup(value)
            except Unresolvable:
                raise ValueError(f"{key}: {value!r} does not exist in this schema") from None
        if key == "pattern" and isinstance(value, str):
            _pattern(value)
        if key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                _pattern(pattern)
    if "patternProperties" in uses and "unevaluatedProperties" in uses:
        raise ValueError("patternProperties and unevaluatedProperties cannot be used together")


def _keywords(node: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Every key of every object that can be a schema, with its value."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            if key not in _ANNOTATIONS:
                yield from _keywords(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            yield from _keywords(value, depth + 1)


@lru_cache(maxsize=512)
def _pattern(pattern: str) -> SchemaValidator:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except PatternError:
        raise ValueError(
            f"pattern: {pattern!r} is not a regular expression of linear time "
            "(no look-around, no back-references)"
        ) from None


def _matches(pattern: str, text: str) -> bool:
    return _pattern(pattern).isinstance_python(text)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _place(field: str, error: ValidationError) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path)
    return field + "".join(f"/{part}" for part in parts)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _frozen(value: Any) -> Any:
    """The value as something that hashes, equal exactly where JSON Schema says equal."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return ("object", frozenset((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("array", tuple(_frozen(item) for item in value))
    return value


# ---- keywords whose usual form is unbounded ------------------------------------------------------


def _check_pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, str) and not _matches(pattern, value):
        yield ValidationError(f"does not match {pattern!r}")


def _check_pattern_properties(
    validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any
) -> Iterator[Any]:
    if isinstance(value, dict):
        for pattern, below in patterns.items():
            _spend(len(value))
            for name, item in value.items():
                if _matches(pattern, name):
                    yield from validator.descend(item, below, path=name, schema_path=pattern)


def _check_additional_properties(
    validator: Any, below: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[Any]:
    if not isinstance(value, dict):
        return
    known = schema.get("properties", {})
    patterns = list(schema.get("patternProperties", {}))
    _spend(len(value) * (1 + len(patterns)))
    for name, item in value.items():
        if name in known or any(_matches(pattern, name) for pattern in patterns):
            continue
        if below is False:
            yield ValidationError(f"{_short(name)!r} is not a property of this object")
        else:
            yield from validator.descend(item, below, path=name)


def _check_unique_items(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
    if wanted and isinstance(value, list) and len({_frozen(item) for item in value}) < len(value):
        yield ValidationError("has equal items")


def _spend(units: int) -> None:
    left = _work_left.get() - units
    if left < 0:
        raise TooCostly("checking this value against the schema takes too long")
    _work_left.set(left)


def _metered(check: Keyword, price: int) -> Keyword:
    def metered(validator: Any, content: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(price + (len(content) >> 3 if isinstance(content, list | dict) else 0))
        yield from check(validator, content, value, schema) or ()

    return metered


_BOUNDED: dict[str, Keyword] = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional_properties,
    "uniqueItems": _check_unique_items,
}
_METERED: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    # Looking up a reference costs about eight times what another keyword does.
    {name: _metered(check, 8 if "$" in name else 1) for name, check in _BOUNDED.items()},
)
