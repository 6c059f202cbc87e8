"""Calls registered functions on a loop of their own: none of them can hold up the server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Sequence

from onbelay_agent.errors import InvalidInput, ToolFailed, described
from onbelay_agent.parking import end_tasks
from onbelay_agent.tool import ToolDefinition
from onbelay_server.adapters.importing import imported
from onbelay_server.domain.state import Risk
from onbelay_server.ports.tools import Tool, ToolError

MAX_MESSAGE = 4000
_END_SECONDS = 2.0
"""For calls that were cancelled to be over; what goes on is left behind."""
_JOIN_SECONDS = 3 * _END_SECONDS


class ToolsError(Exception):
    """Tools that cannot be offered; the text is one line for the operator."""


def load_tools(modules: Sequence[str]) -> list[ToolDefinition]:
    """Every `@tool` of the modules named. Raises ToolsError for a module that cannot be imported,
    has no tool, or names a tool as another one does."""
    found: dict[str, ToolDefinition] = {}
    for name in modules:
        module = imported(name, ToolsError)
        tools = [one for one in vars(module).values() if isinstance(one, ToolDefinition)]
        if not tools:
            raise ToolsError(f"{name} has no tools: decorate them with @tool")
        for tool in tools:
            if found.setdefault(tool.name, tool) is not tool:
                raise ToolsError(f"{name}: there is another tool named {tool.name}")
    return list(found.values())


class RegisteredTools:
    """Implements Tools over `@tool` functions. Coroutines share one loop in a thread of its own,
    plain functions run in its threads."""

    def __init__(self, definitions: Iterable[ToolDefinition] = ()) -> None:
        """Raises ToolsError for two tools of one name."""
        self._definitions: dict[str, ToolDefinition] = {}
        for definition in definitions:
            if self._definitions.setdefault(definition.name, definition) is not definition:
                raise ToolsError(f"two tools are named {definition.name}")
        self._tools = {name: _tool(one) for name, one in sorted(self._definitions.items())}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def get(self, name: str) -> Tool | None:
        """The tool of that name."""
        return self._tools.get(name)

    def list(self) -> Sequence[Tool]:
        """Every tool, by name."""
        return tuple(self._tools.values())

    async def call(self, name: str, arguments_json: str, *, idempotency_key: str) -> str:
        """Run it with exactly these argument bytes; its result as JSON. Raises ToolError.

        Cancelling it cancels a coroutine; a plain function runs on in its thread."""
        definition = self._definitions.get(name)
        if definition is None:
            raise ToolError("ToolDenied", f"this server has no tool {name!r}")
        work = asyncio.run_coroutine_threadsafe(
            _invoke(definition, arguments_json, idempotency_key), self._running_loop()
        )
        return await asyncio.wrap_future(work)

    async def close(self) -> None:
        """End the loop; calls that are still in flight are cancelled."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            await asyncio.to_thread(thread.join, _JOIN_SECONDS)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_turn, args=(self._loop,), name="onbelay-tools", daemon=True
            )
            self._thread.start()
        return self._loop


async def _invoke(definition: ToolDefinition, arguments_json: str, idempotency_key: str) -> str:
    try:
        return await definition.invoke(arguments_json, idempotency_key)
    except InvalidInput as error:
        raise ToolError(
            "ToolFailed", _cut(f"the arguments do not fit: {described(error)[1]}")
        ) from error
    except ToolFailed as error:
        raise ToolError("ToolFailed", _cut(described(error)[1])) from error
    except Exception as error:
        # The operator's own function: its words are for the agent and the run's readers.
        raise ToolError("ToolFailed", _cut(": ".join(described(error)))) from error


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    end_tasks(loop, _END_SECONDS)
    loop.close()


def _tool(definition: ToolDefinition) -> Tool:
    return Tool(
        name=definition.name,
        description=definition.description,
        risk=Risk(definition.risk.upper()),
        is_idempotent=definition.idempotent,
        input_schema_json=json.dumps(
            definition.input_schema, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        ),
    )


def _cut(message: str) -> str:
    return message[:MAX_MESSAGE]
