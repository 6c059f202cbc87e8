"""What happens outside of the agent's own code: child runs, operations, messages; and versions."""

from __future__ import annotations

import datetime
from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from onbelay_agent import values
from onbelay_agent.asking import Asking, decoded, named, plain, text_of
from onbelay_agent.call import Call
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.errors import (
    AgentCallError,
    ChildRunFailed,
    OperationFailed,
    RefusedCall,
    ValueNotStorable,
)
from onbelay_agent.protocol import Record

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ChildRun(Generic[T]):
    """A run this one has started. Awaiting it, as often as one likes, gives its output."""

    run_id: str
    agent: str
    _asking: Asking = field(repr=False)
    _adapter: values.Adapter | None = field(repr=False)

    def result(self) -> Coroutine[Any, Any, T]:
        """Its output, once it has ended. Raises ChildRunFailed."""
        request = {"child_run_id": self.run_id}
        decode = _fitting(self._adapter, ChildRunFailed, request | {"state": "SUCCEEDED"})
        return self._asking._wait(self._asking._call("CHILD", "join", self.agent, request, decode))

    def __await__(self) -> Generator[Any, Any, T]:
        return self.result().__await__()


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[T]):
    """Something that finishes elsewhere, by whoever is given `id` and `token`. Awaiting it, as
    often as one likes, gives its result."""

    id: str
    token: str = field(repr=False)
    name: str
    _asking: Asking = field(repr=False)
    _adapter: values.Adapter | None = field(repr=False)

    def result(self) -> Coroutine[Any, Any, T]:
        """What it was completed with. Raises OperationFailed; `expired` when nobody did in time."""
        request = {"operation_id": self.id}
        decode = _fitting(self._adapter, OperationFailed, request)
        call = self._asking._call("OPERATION", "outcome", self.name, request, decode)
        return self._asking._wait(call)

    def __await__(self) -> Generator[Any, Any, T]:
        return self.result().__await__()


@dataclass(frozen=True, slots=True)
class Message:
    """Something said to the run while it runs."""

    id: str
    sent_by: str
    text: str
    data: Any


class Elsewhere(Asking):
    """The calls of a context that others answer."""

    @overload
    def run_agent(
        self, agent: str | AgentDefinition, input: Any = None, *, returns: type[T]
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def run_agent(
        self, agent: str | AgentDefinition, input: Any = None, *, returns: None = None
    ) -> Coroutine[Any, Any, Any]: ...

    def run_agent(
        self, agent: str | AgentDefinition, input: Any = None, *, returns: Any = None
    ) -> Coroutine[Any, Any, Any]:
        """Run another agent as a child run and wait for its output. See `start_agent`.

        Raises ChildRunFailed. Giving up the wait does not stop the child."""
        return self._start_and_join(self.start_agent(agent, input, returns=returns))

    @overload
    def start_agent(
        self, agent: str | AgentDefinition, input: Any = None, *, returns: type[T]
    ) -> Coroutine[Any, Any, ChildRun[T]]: ...

    @overload
    def start_agent(
        self, agent: str | AgentDefinition, input: Any = None, *, returns: None = None
    ) -> Coroutine[Any, Any, ChildRun[Any]]: ...

    def start_agent(
        self, agent: str | AgentDefinition, input: Any = None, *, returns: Any = None
    ) -> Coroutine[Any, Any, ChildRun[Any]]:
        """Start another agent as a child run; a handle to await it with, now or later.

        `input` is a mapping or a pydantic model; `returns` the type of the child's output (default:
        what an agent given as itself is annotated with, else plain JSON). The child is stopped when
        this run ends. Raises ChildRunFailed when it cannot be started."""
        name = agent.name if isinstance(agent, AgentDefinition) else agent
        adapter = values.adapter_of(returns) if returns is not None else None
        if adapter is None and isinstance(agent, AgentDefinition):
            adapter = agent.signature.output_adapter
        try:
            input_json = values.canonical({} if input is None else input)
        except ValueNotStorable as error:
            raise ValueNotStorable(f"the input of {name!r}: {error}") from None

        def started(record: Record, blob: bytes | None) -> ChildRun[Any]:
            return ChildRun(decoded(record, blob)["child_run_id"], name, self, adapter)

        request = {"agent": name, "input_json": input_json}
        return self._wait(
            self._answered_at_once(self._call("CHILD", "child", name, request, started))
        )

    @overload
    def operation(
        self,
        name: str,
        schema: type[T],
        expires: float | datetime.timedelta | None = None,
    ) -> Coroutine[Any, Any, Operation[T]]: ...

    @overload
    def operation(
        self, name: str, schema: Any = None, expires: float | datetime.timedelta | None = None
    ) -> Coroutine[Any, Any, Operation[Any]]: ...

    def operation(
        self, name: str, schema: Any = None, expires: float | datetime.timedelta | None = None
    ) -> Coroutine[Any, Any, Operation[Any]]:
        """Open something that will be completed from outside; hand its `id` and `token` to whoever
        will do so, then await it.

        `schema` is the result's type, or a JSON Schema for plain JSON (default: any JSON).
        `expires`: seconds after which nobody can complete it any more."""
        if isinstance(expires, datetime.timedelta):
            expires = expires.total_seconds()
        if expires is not None and not (expires > 0 and values.is_finite(expires)):
            raise ValueError(f"operation {name!r}: expires must be a number of seconds above 0")
        is_type = schema is not None and not isinstance(schema, Mapping)
        adapter = values.adapter_of(schema) if is_type else None
        shape = schema if adapter is None else values.schema_of(schema)
        request = {"name": named(name), "schema": plain(shape), "expires_seconds": expires}

        def opened(record: Record, blob: bytes | None) -> Operation[Any]:
            made = decoded(record, blob)
            return Operation(made["operation_id"], made["token"], name, self, adapter)

        call = self._call("OPERATION", "operation", name, request, opened)
        return self._wait(self._answered_at_once(call))

    def messages(self, wait: bool = True) -> Coroutine[Any, Any, list[Message]]:
        """What was said to this run and not taken yet, oldest first; each message is taken once.

        Waits for one unless `wait` is False; then the list may be empty. The agent must be declared
        with `accepts_messages=True`."""
        if not self._copy.definition.accepts_messages:
            raise RefusedCall("this agent takes no messages: declare @agent(accepts_messages=True)")
        call = self._call("MESSAGES", "messages", "messages", {"wait": bool(wait)}, _messages)
        return self._wait(call if wait else self._answered_at_once(call))

    def version(self, name: str, newest: int) -> int:
        """Which branch of changed code this run takes: `newest` in runs that get here for the first
        time, which records it; the number recorded in runs that did before; 0 in runs that were
        here when the code did not ask yet. One answer per name within a run."""
        self._place("version")
        if isinstance(newest, bool) or not isinstance(newest, int) or newest < 1:
            raise ValueError(f"version {name!r}: the number must be 1 or more")
        return self._copy.versions.of(named(name), newest)

    @staticmethod
    async def _start_and_join(start: Coroutine[Any, Any, ChildRun[Any]]) -> Any:
        return await (await start)

    @staticmethod
    def _answered_at_once(call: Call) -> Call:
        call.at_once = True
        return call


def _fitting(
    adapter: values.Adapter | None, failed: type[AgentCallError], data: Mapping[str, Any]
) -> Any:
    def decode(record: Record, blob: bytes | None) -> Any:
        try:
            return values.decode(text_of(record, blob), adapter)
        except ValueNotStorable as error:
            raise failed(f"its result does not fit: {error}", dict(data)) from None

    return decode


def _messages(record: Record, blob: bytes | None) -> list[Message]:
    return [
        Message(str(one["message_id"]), str(one["sent_by"]), str(one["text"]), one.get("data"))
        for one in decoded(record, blob)
    ]
