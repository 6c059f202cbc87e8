"""`@tool`: a function an agent may call through the broker."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, overload

from onbelay_agent import values
from onbelay_agent.errors import InvalidDefinition, ToolFailed, ValueNotStorable
from onbelay_agent.signature import Signature

Risk = Literal["read", "compute", "write", "external_send", "destructive", "admin", "secret"]
RISKS: tuple[Risk, ...] = get_args(Risk)
"""From the least to the highest."""


@dataclass(frozen=True, slots=True, eq=False)
class ToolDefinition:
    """A registered function with its schemas and its risk.

    `idempotent`: calling it again with the same key has no second effect, so a call whose outcome
    is unknown may be repeated. A parameter named `idempotency_key` receives that key and is not
    part of the input."""

    name: str
    description: str
    function: Callable[..., Any]
    risk: Risk
    idempotent: bool
    signature: Signature

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        return self.signature.input_schema

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the result."""
        return self.signature.output_schema

    @property
    def repeatable(self) -> bool:
        """Whether a call whose outcome is unknown may simply be made again."""
        return self.idempotent or self.risk in ("read", "compute")

    async def invoke(self, arguments_json: str, idempotency_key: str = "") -> str:
        """Call the function (a sync one in a thread) and return its result as JSON.

        Raises InvalidInput for arguments that do not fit, ToolFailed when the result cannot be
        stored; what the function raises passes through."""
        arguments = self.signature.bind(arguments_json)
        if "idempotency_key" in self.signature.injected:
            arguments["idempotency_key"] = idempotency_key
        if inspect.iscoroutinefunction(self.function):
            value = await self.function(**arguments)
        else:
            value = await asyncio.to_thread(self.function, **arguments)
            if inspect.isawaitable(value):
                value = await value
        try:
            return values.encode(value, self.signature.output_adapter)
        except ValueNotStorable as error:
            raise ToolFailed(f"{self.name}: its result cannot be stored: {error}") from None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


@overload
def tool(function: Callable[..., Any], /) -> ToolDefinition: ...


@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    risk: Risk = "read",
    idempotent: bool = False,
) -> Callable[[Callable[..., Any]], ToolDefinition]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    description: str = "",
    risk: Risk = "read",
    idempotent: bool = False,
) -> ToolDefinition | Callable[[Callable[..., Any]], ToolDefinition]:
    """Make a function a tool; name and description default to its own name and docstring.

    Raises InvalidDefinition when the signature cannot be described as JSON."""

    def define(function: Callable[..., Any]) -> ToolDefinition:
        if risk not in RISKS:
            raise InvalidDefinition(f"risk {risk!r} is none of {', '.join(RISKS)}")
        return ToolDefinition(
            name=name or function.__name__,
            description=description or inspect.getdoc(function) or "",
            function=function,
            risk=risk,
            idempotent=idempotent,
            signature=Signature(function, injected=("idempotency_key",)),
        )

    return define(function) if function is not None else define


def highest_risk(risks: list[Risk]) -> Risk:
    """The highest of `risks`, `read` when there is none."""
    return cast(Risk, max(risks, key=RISKS.index, default="read"))
