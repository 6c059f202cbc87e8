"""`@agent`: what the service must know of an agent, taken from its function."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, overload

from onbelay_agent.errors import (
    AgentNotLoaded,
    InvalidDefinition,
    RunEnding,
    StepFailed,
    described,
)
from onbelay_agent.limits import Limits, OnCodeChange
from onbelay_agent.signature import Signature
from onbelay_agent.tool import Risk, ToolDefinition, highest_risk

if TYPE_CHECKING:
    from onbelay_agent.context import Context

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")


@dataclass(frozen=True, slots=True, eq=False)
class AgentDefinition:
    """An agent: its function with its name, schemas, tools and limits.

    `target` is the `module:function` it can be loaded from. `runs_in` is `process` for code that
    only awaits, `child` for a process of its own."""

    name: str
    description: str
    target: str
    function: Callable[..., Any]
    signature: Signature
    tools: tuple[str, ...]
    risk: Risk
    limits: Limits
    runs_in: Literal["process", "child"]
    accepts_messages: bool
    fingerprint: str
    on_code_change: OnCodeChange

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the run's input."""
        return self.signature.input_schema

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the run's output."""
        return self.signature.output_schema

    def bind(self, input_json: str) -> dict[str, Any]:
        """The function's keyword arguments. Raises InvalidInput with the field that is wrong."""
        return self.signature.bind(input_json)

    def encode_output(self, value: Any) -> str:
        """The run's output as JSON. Raises ValueNotStorable."""
        return self.signature.encode_output(value)

    async def invoke(self, context: Context, arguments: dict[str, Any]) -> Any:
        """Run the agent's code. A plain `def` is one step of its own, in a thread."""
        if inspect.iscoroutinefunction(self.function):
            return await self.function(context, **arguments)
        whole = functools.partial(self.function, context, **arguments)
        returns = self.signature.output_type
        return await context.step(self.name, whole, returns=returns)

    def described_error(self, error: BaseException) -> tuple[str, str]:
        """Type and text of what the agent's code raised, as a run's failure shows them."""
        if isinstance(error, StepFailed) and not inspect.iscoroutinefunction(self.function):
            return error.error_type, str(error.data.get("message", ""))
        if isinstance(error, RunEnding):
            return type(error).__name__, "raised by the agent's own code"
        error_type, text = described(error)
        return error_type, text[:4000]

    def describe(self) -> dict[str, Any]:
        """Everything but the code, as plain JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "target": self.target,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "tools": list(self.tools),
            "risk": self.risk,
            "limits": self.limits.declared(),
            "on_code_change": self.on_code_change,
            "runs_in": self.runs_in,
            "accepts_messages": self.accepts_messages,
            "fingerprint": self.fingerprint,
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


@overload
def agent(function: Callable[..., Any], /) -> AgentDefinition: ...


@overload
def agent(
    *,
    name: str = "",
    description: str = "",
    tools: Sequence[ToolDefinition | str] = (),
    risk: Risk | None = None,
    limits: Limits | None = None,
    child: bool | None = None,
    accepts_messages: bool = False,
    on_code_change: OnCodeChange = "hold",
) -> Callable[[Callable[..., Any]], AgentDefinition]: ...


def agent(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    description: str = "",
    tools: Sequence[ToolDefinition | str] = (),
    risk: Risk | None = None,
    limits: Limits | None = None,
    child: bool | None = None,
    accepts_messages: bool = False,
    on_code_change: OnCodeChange = "hold",
) -> AgentDefinition | Callable[[Callable[..., Any]], AgentDefinition]:
    """Make `async def name(ctx: Context, …)` an agent.

    The name defaults to the function's in kebab-case, the description to its docstring, the highest
    risk to that of its tools. `child=True` runs it in a process of its own; a plain `def` always
    does. Raises InvalidDefinition when it cannot be an agent."""

    def define(function: Callable[..., Any]) -> AgentDefinition:
        chosen = name or function.__name__.strip("_").replace("_", "-").lower()
        if _NAME.match(chosen) is None:
            raise InvalidDefinition(f"an agent's name is a-z, 0-9 and dashes, not {chosen!r}")
        plain = not inspect.iscoroutinefunction(function)
        if plain and inspect.isasyncgenfunction(function):
            raise InvalidDefinition(f"{chosen}: an agent returns its result, it does not yield")
        if plain and child is False:
            raise InvalidDefinition(f"{chosen}: a plain def runs in a child; write async def")
        risks = [item.risk for item in tools if isinstance(item, ToolDefinition)]
        return AgentDefinition(
            name=chosen,
            description=description or inspect.getdoc(function) or "",
            target=f"{function.__module__}:{function.__qualname__}",
            function=function,
            signature=Signature(function, skip_first=True),
            tools=tuple(t.name if isinstance(t, ToolDefinition) else t for t in tools),
            risk=risk if risk is not None else highest_risk(risks),
            limits=limits if limits is not None else Limits(),
            runs_in="child" if plain or child else "process",
            accepts_messages=accepts_messages,
            fingerprint=_fingerprint(function),
            on_code_change=on_code_change,
        )

    return define(function) if function is not None else define


def load(target: str) -> AgentDefinition:
    """The agent at `module:function` or `path/file.py:function`.

    Raises AgentNotLoaded when there is none; what the module itself raises passes through as the
    cause."""
    place, separator, attribute = target.rpartition(":")
    if not separator or not place or not attribute:
        raise AgentNotLoaded(f"{target!r} is not module:function or path/file.py:function")
    try:
        module = _module_at(place) if place.endswith(".py") else importlib.import_module(place)
    except AgentNotLoaded:
        raise
    except Exception as error:
        raise AgentNotLoaded(
            f"{place} cannot be imported: {': '.join(described(error))}"
        ) from error
    found = getattr(module, attribute, None)
    if isinstance(found, AgentDefinition):
        return found
    if found is None:
        raise AgentNotLoaded(f"{place} has no {attribute!r}")
    raise AgentNotLoaded(f"{target} is not an agent: decorate it with @agent")


def _module_at(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise AgentNotLoaded(f"{place} is not a file")
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None:
        name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AgentNotLoaded(f"{place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    if folder not in sys.path:
        # Behind everything else: a file of the agent's stands in for no module of Python.
        sys.path.append(folder)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _fingerprint(function: Callable[..., Any]) -> str:
    """SHA-256 of the source file, else of the compiled function."""
    try:
        path = inspect.getsourcefile(function)
        if path is not None:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (TypeError, OSError):
        pass
    code = function.__code__
    return hashlib.sha256(code.co_code + repr(code.co_names).encode()).hexdigest()
