"""What crosses the log: values as JSON text.

A value is what was stored. Results are encoded and decoded on the first pass too, so code never
sees on a replay what it did not see live. Without a type only plain JSON passes; a type (from
`returns=` or the function's annotation) is encoded and decoded by pydantic.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError

from onbelay_agent.errors import ValueNotStorable

_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_PLAIN = (str, int, float, bool, type(None))
_BYTES_AS_BASE64 = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

_SCALARS = frozenset((str, int, bool, type(None)))

Adapter = TypeAdapter[Any]


def encode(value: Any, adapter: Adapter | None = None) -> str:
    """The JSON text of `value`, in the order of its own keys.

    Raises ValueNotStorable for what is not JSON (or does not fit `adapter`'s type), for NaN and
    infinities, for keys that are not text and for text that is not Unicode.
    """
    if adapter is not None:
        value = _dumped(value, adapter)
    elif type(value) is int:
        return _written(_WRITER, value)
    else:
        _require_plain(value)
    return _written(_WRITER, value)


def decode(text: str, adapter: Adapter | None = None) -> Any:
    """The value of JSON text. Raises ValueNotStorable when it does not fit `adapter`'s type."""
    if adapter is None:
        try:
            return _READER.decode(text)
        except (ValueError, RecursionError) as error:
            raise ValueNotStorable(f"not JSON: {error}") from None
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueNotStorable(f"{place + ': ' if place else ''}{first['msg']}") from None


def canonical(value: Any) -> str:
    """JSON text with sorted keys: the same for equal values, so that it can be hashed.

    Pydantic models and dataclasses are written as their fields. Raises ValueNotStorable."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    _require_plain(value)
    return _written(_SORTED, value)


def require_unicode(text: str) -> None:
    """Raises ValueNotStorable for text with a lone surrogate."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueNotStorable("text with a lone surrogate is not Unicode") from None


def is_finite(number: float) -> bool:
    """Whether it can be stored as a number: no NaN, no infinity, no int beyond every float."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def digest(text: str) -> str:
    """Lower-case hex SHA-256 of the text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_of(arguments: tuple[Any, ...]) -> str:
    """A description of a function's arguments to compare between replays.

    What is JSON counts with its value, anything else with its type alone: a step may well be given
    a table or a client, whose content cannot be compared."""
    if _SCALARS.issuperset(map(type, arguments)):
        return repr(arguments)
    try:
        return _DESCRIBING.encode(arguments)
    except (TypeError, ValueError, RecursionError):
        return "[" + ",".join(f'"{_described(argument)}"' for argument in arguments) + "]"


@functools.lru_cache(maxsize=1024)
def adapter_of(wanted: Any) -> Adapter:
    """The cached adapter of a type. Raises ValueNotStorable when pydantic cannot handle it."""
    try:
        return _adapter(wanted)
    except PydanticSchemaGenerationError as error:
        name = getattr(wanted, "__name__", str(wanted))
        raise ValueNotStorable(f"{name} cannot be stored: {error.message}") from None


@functools.lru_cache(maxsize=1024)
def schema_of(wanted: Any) -> dict[str, Any]:
    """The cached JSON Schema of a type; not to be changed. Raises ValueNotStorable."""
    return adapter_of(wanted).json_schema()


def result_adapter(fn: Callable[..., Any], returns: Any) -> Adapter | None:
    """The adapter of a step's result: `returns`, else what `fn` is annotated to return, else None.

    An annotation pydantic cannot handle counts as none; `returns` it cannot handle raises."""
    if returns is not None:
        return adapter_of(returns)
    fn = getattr(fn, "__func__", fn)
    if "return" not in getattr(fn, "__annotations__", ()):
        return None
    return _annotated_adapter(fn)


@functools.lru_cache(maxsize=1024)
def _annotated_adapter(fn: Callable[..., Any]) -> Adapter | None:
    try:
        wanted = get_type_hints(fn).get("return", Any)
        return None if wanted in (Any, type(None)) else adapter_of(wanted)
    except (NameError, TypeError, AttributeError, ValueNotStorable):
        return None


def _adapter(wanted: Any) -> Adapter:
    try:
        return TypeAdapter(wanted, config=_BYTES_AS_BASE64)
    except PydanticSchemaGenerationError:
        raise
    except PydanticUserError:
        return TypeAdapter(wanted)


def _dumped(value: Any, adapter: Adapter) -> Any:
    try:
        return adapter.dump_python(value, mode="json", warnings="error", by_alias=True)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        first = str(error).strip().splitlines()
        raise ValueNotStorable(" ".join(part.strip() for part in first)[:500]) from None


def _written(writer: json.JSONEncoder, value: Any) -> str:
    try:
        text = writer.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueNotStorable(str(error)) from None
    require_unicode(text)
    return text


def _require_plain(value: Any, depth: int = 0) -> None:
    if isinstance(value, _PLAIN):
        return
    if depth > 200:
        raise ValueNotStorable("nested more than 200 levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueNotStorable(f"key {key!r} is {type(key).__name__}, not text")
            if not isinstance(item, _PLAIN):
                _require_plain(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, _PLAIN):
                _require_plain(item, depth + 1)
    else:
        raise ValueNotStorable(
            f"{type(value).__name__} is not plain JSON; annotate the type or pass returns="
        )


def _described(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _describe(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return _described(value)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueNotStorable(f"{constant} is not JSON")


_READER = json.JSONDecoder(parse_constant=_refuse_constant)
_SORTED = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
_DESCRIBING = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_describe)
