"""A function's parameters and result as JSON: schemas, binding, encoding."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from onbelay_agent import values
from onbelay_agent.errors import InvalidDefinition, InvalidInput, ValueNotStorable

_PREFIX = "argument_"


class Signature:
    """What a function takes and gives, as JSON.

    One parameter that is a pydantic model takes the whole input; otherwise the input is an object
    with a key for each parameter, and no others. Raises InvalidDefinition at once for what JSON
    cannot carry."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        skip_first: bool = False,
        injected: Sequence[str] = (),
    ) -> None:
        self._where = getattr(function, "__qualname__", str(function))
        parameters = list(inspect.signature(function).parameters.values())
        if skip_first:
            if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
                raise InvalidDefinition(f"{self._where}: its first parameter must be the Context")
            parameters = parameters[1:]
        try:
            hints = get_type_hints(function, include_extras=True)
        except (NameError, TypeError) as error:
            raise InvalidDefinition(f"{self._where}: {error}") from None
        self.injected = tuple(p.name for p in parameters if p.name in injected)
        """Parameters that are given by the caller's side rather than by the input."""
        parameters = [p for p in parameters if p.name not in injected]
        for parameter in parameters:
            if parameter.kind in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
                inspect.Parameter.POSITIONAL_ONLY,
            ):
                raise InvalidDefinition(
                    f"{self._where}: parameter {parameter.name!r} cannot be given by name"
                )
        self._whole: str | None = None
        self._model = self._input_model(parameters, hints)
        returns = hints.get("return", Any)
        self.output_type: Any = None if returns in (Any, type(None)) else returns
        self.output_adapter: values.Adapter | None = None
        """None for plain JSON."""
        if returns not in (Any, type(None)):
            try:
                self.output_adapter = values.adapter_of(returns)
            except ValueNotStorable as error:
                raise InvalidDefinition(f"{self._where}: its result: {error}") from None
        self.input_schema = self._model.model_json_schema(by_alias=True)
        self.output_schema = self._schema_of_output(returns)

    def bind(self, input_json: str) -> dict[str, Any]:
        """The keyword arguments for an input. Raises InvalidInput with the field that is wrong."""
        try:
            model = self._model.model_validate_json(input_json or "{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(
                f"{field}: {first['msg']}" if field else first["msg"], field
            ) from None
        if self._whole is not None:
            return {self._whole: model}
        return {
            name.removeprefix(_PREFIX): getattr(model, name) for name in type(model).model_fields
        }

    def encode_output(self, value: Any) -> str:
        """The result as JSON. Raises ValueNotStorable."""
        return values.encode(value, self.output_adapter)

    def _input_model(
        self, parameters: list[inspect.Parameter], hints: dict[str, Any]
    ) -> type[BaseModel]:
        if len(parameters) == 1:
            whole = hints.get(parameters[0].name)
            if isinstance(whole, type) and issubclass(whole, BaseModel):
                self._whole = parameters[0].name
                return whole
        fields: dict[str, Any] = {}
        for parameter in parameters:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            wanted = hints.get(parameter.name, Any)
            title = parameter.name.replace("_", " ").capitalize()
            fields[_PREFIX + parameter.name] = (
                wanted,
                Field(default, alias=parameter.name, title=title),
            )
        try:
            return create_model("Input", __config__=ConfigDict(extra="forbid"), **fields)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise InvalidDefinition(f"{self._where}: {error}") from None

    def _schema_of_output(self, returns: Any) -> dict[str, Any]:
        if returns is Any:
            return {}
        schema = TypeAdapter(returns).json_schema(mode="serialization")
        return dict(json.loads(json.dumps(schema)))
