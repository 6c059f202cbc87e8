"""What an agent's code is given: calls that are recorded, and the little that needs no record."""

from __future__ import annotations

import asyncio
import datetime
import random as chance
import uuid as uuids
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from onbelay_agent import values
from onbelay_agent.artifacts import Artifacts
from onbelay_agent.asking import decoded, named, plain, text_of
from onbelay_agent.call import Call
from onbelay_agent.elsewhere import Elsewhere
from onbelay_agent.emits import Level
from onbelay_agent.errors import InvalidAnswer, ValueNotStorable
from onbelay_agent.protocol import Record
from onbelay_agent.tool import ToolDefinition
from onbelay_agent.work import INSIDE, Retries, StepPlan

if TYPE_CHECKING:
    from onbelay_agent.copy import Copy

T = TypeVar("T")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Approved:
    """A person's yes."""

    by: str
    comment: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is fixed about the run. `attempt` counts its copies and is meant for logs alone."""

    id: str
    agent: str
    attempt: int
    labels: Mapping[str, str]


class Context(Elsewhere):
    """One copy's context. Calls take their place when they are made and are recorded when awaited.

    A call in which this copy is ending raises RunStopped or RunSuspended. Inside a step's function
    only `emit`, `progress`, `report`, `log`, `stopping`, `env`, `session` and `run` may be used."""

    def __init__(self, copy: Copy) -> None:
        super().__init__(copy)
        start = copy.start
        self.env: Mapping[str, str] = MappingProxyType(dict(start.env))
        """Settings of the agent, fixed when the run started. Not the process's environment."""
        self.session: str = start.session_id
        """The conversation this run is a turn of, or empty."""
        self.run = RunInfo(
            start.run_id, start.agent, start.attempt, MappingProxyType(dict(start.labels))
        )
        self.artifacts = Artifacts(self)

    # ---- for watchers ----------------------------------------------------------------------------

    def emit(self, text: str) -> None:
        """Show text to watchers."""
        self._copy.emits.add("text", text)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far it is: `done` of `total`."""
        if not (values.is_finite(done) and (total is None or values.is_finite(total))):
            raise ValueNotStorable("progress must be finite")
        whole = None if total is None else float(total)
        self._copy.emits.add("progress", note, done=float(done), total=whole)

    def report(self, name: str, data: Any) -> None:
        """Report something of your own: `data` is plain JSON."""
        self._copy.emits.add("report", name, data=data)

    def log(self, message: str, level: Level = "INFO", **data: Any) -> None:
        """Write to the run's log; `data` is plain JSON."""
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError(f"level {level!r} is none of DEBUG, INFO, WARNING, ERROR")
        self._copy.emits.add("log", message, level=level, data=data or None)

    @property
    def stopping(self) -> bool:
        """The run, or this step, is to end: finish early."""
        inside = INSIDE.get()
        if inside is not None:
            return inside.stopping
        return self._copy.ending is not None

    # ---- derived ---------------------------------------------------------------------------------

    def now(self) -> datetime.datetime:
        """The time of the last result this code was given, in UTC."""
        self._place("now")
        return _EPOCH + datetime.timedelta(microseconds=self._copy.run_loop.now_us)

    @property
    def random(self) -> chance.Random:
        """Chance that falls alike on every replay; each task has its own."""
        return self._place("random").random

    def uuid(self) -> uuids.UUID:
        """A UUID (version 4) that is the same on every replay."""
        return self._place("uuid").uuid()

    def on_finish(self, fn: Callable[[], Any]) -> None:
        """Have `fn` called when the run really ends, last registered first; not at a suspension."""
        self._place("on_finish")
        self._copy.finishers.append(fn)

    # ---- recorded --------------------------------------------------------------------------------

    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        returns: type[T],
        once: bool = False,
        retries: int | Retries | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        returns: None = None,
        once: bool = False,
        retries: int | Retries | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., T],
        *args: Any,
        returns: Any = None,
        once: bool = False,
        retries: int | Retries | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, T]: ...

    def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        returns: Any = None,
        once: bool = False,
        retries: int | Retries | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Run `fn(*args)` beside the agent, once its start is recorded, and record its result.

        A sync `fn` runs in a thread. After a crash it runs again unless `once`; then a person says
        what became of it. `returns` is the result's type (default: what `fn` is annotated with,
        else plain JSON). `retries`: further tries after an exception, or Retries; `timeout` is
        seconds a try. Raises StepFailed."""
        branch = self._place("step")
        if not callable(fn):
            raise TypeError(f"step {name!r}: fn must be callable")
        if timeout is not None and not (timeout > 0 and values.is_finite(timeout)):
            raise ValueError(f"step {name!r}: timeout must be a number of seconds above 0")
        adapter = values.result_adapter(fn, returns)
        wanted = Retries(retries) if isinstance(retries, int) else retries
        plan = StepPlan(fn, args, adapter, once, wanted, timeout)
        call = Call(
            branch.next_id("step", named(name)),
            "STEP",
            name,
            values.digest(f"{name}\n{once}\n{values.fingerprint_of(args)}"),
            '{"once":true}' if once else '{"once":false}',
            decode=lambda record, blob: values.decode(text_of(record, blob), adapter),
            plan=plan,
        )
        return self._copy.wait(call)

    def tool(
        self,
        name: str | ToolDefinition,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Call a tool through the broker. Raises ToolDenied, Rejected, Expired or ToolFailed."""
        chosen = name.name if isinstance(name, ToolDefinition) else name
        request = {
            "tool": chosen,
            "arguments": dict(arguments or {}),
            "timeout_seconds": timeout,
        }
        return self._copy.wait(self._call("TOOL", "tool", chosen, request, decoded))

    def tools(
        self, calls: Sequence[tuple[str | ToolDefinition, Mapping[str, Any]]]
    ) -> Coroutine[Any, Any, list[Any]]:
        """Call several tools as one declared batch; results in the order of `calls`.

        Waits for all of them, then raises the first failure, if any."""
        return self._all([self.tool(name, arguments) for name, arguments in calls])

    def approve(
        self, title: str, body: str = "", evidence: Any = None
    ) -> Coroutine[Any, Any, Approved]:
        """Wait for a person's yes; it never returns a no. Raises Rejected or Expired."""
        request = {"title": title, "body": body, "evidence": plain(evidence)}
        return self._copy.wait(self._call("APPROVAL", "approval", "approve", request, _approved))

    @overload
    def ask(self, question: str, schema: type[T]) -> Coroutine[Any, Any, T]: ...

    @overload
    def ask(self, question: str, schema: Any = ...) -> Coroutine[Any, Any, Any]: ...

    def ask(self, question: str, schema: Any = str) -> Coroutine[Any, Any, Any]:
        """Ask a person. `schema` is the answer's type, or a JSON Schema for plain JSON.

        Raises InvalidAnswer when the answer does not fit, Expired when nobody answered."""
        adapter = None if isinstance(schema, Mapping) else values.adapter_of(schema)
        shape = dict(schema) if adapter is None else values.schema_of(schema)
        request = {"question": question, "schema": shape}

        def decode(record: Record, blob: bytes | None) -> Any:
            try:
                return values.decode(text_of(record, blob), adapter)
            except ValueNotStorable as error:
                raise InvalidAnswer(f"the answer does not fit: {error}") from None

        return self._copy.wait(self._call("QUESTION", "question", "ask", request, decode))

    async def sleep(self, seconds: float | datetime.timedelta) -> None:
        """Wait durably: the run needs no worker meanwhile."""
        if isinstance(seconds, datetime.timedelta):
            seconds = seconds.total_seconds()
        self._place("sleep")
        await asyncio.sleep(seconds)

    async def _all(self, waits: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        results = await asyncio.gather(*waits, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return list(results)


def _approved(record: Record, blob: bytes | None) -> Approved:
    data = decoded(record, blob)
    if not isinstance(data, dict):
        data = {}
    return Approved(by=str(data.get("by", "")), comment=str(data.get("comment", "")))
