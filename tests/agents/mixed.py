# tests/agents/mixed.py
"""Everything an agent can do, in an order that a seed decides; the same seed gives the same output.

What it does outside is counted by the effect service. `plan` says what a seed comes to, so that a
test knows the output of a run before it starts it.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Any

from onbelay_agent import Context, Limits, Rejected, StepFailed, agent, tool
from onbelay_agent.errors import ChildRunFailed, OperationFailed

KINDS = (
    "step", "once", "peek", "charge", "put", "nap", "sleep", "approve", "reject", "ask",
    "operation", "refused", "late", "message", "child", "handle", "gather", "timeout", "flaky",
    "failing", "emit", "version", "file",
)  # fmt: skip
CHILD_KINDS = ("step", "once", "charge", "put", "nap", "approve", "emit", "operation", "child")
MAX_DEPTH = 2


@dataclass(frozen=True, slots=True)
class Part:
    """One thing the agent does, and what it adds to its output."""

    kind: str
    number: int
    seconds: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number}"


def plan(seed: int, length: int, kinds: tuple[str, ...] = KINDS) -> list[Part]:
    """What the seed comes to."""
    dice = random.Random(seed)
    return [
        Part(dice.choice(kinds), number, round(dice.uniform(0.005, 0.2), 3), dice.randrange(2**31))
        for number in range(length)
    ]


def expected(seed: int, length: int, only: tuple[str, ...] = (), depth: int = 0) -> list[str]:
    """The output of a run that nobody stops."""
    return [part.name for part in _parts(seed, length, only, depth)]


def _parts(seed: int, length: int, only: tuple[str, ...], depth: int) -> list[Part]:
    if only:
        return [Part(kind, number, 0.02, seed * 1000 + number) for number, kind in enumerate(only)]
    return plan(seed, length, KINDS if depth == 0 else CHILD_KINDS)


@tool(risk="read")
async def peek(service: str, key: str) -> str:
    """Reads; may be repeated."""
    return await _happen(service, "peek", key)


@tool(risk="write")
async def charge(service: str, key: str, seconds: float = 0.0) -> str:
    """Writes; must not be repeated."""
    return await _happen(service, "charge", key, after=seconds)


@tool(risk="write", idempotent=True)
async def put(idempotency_key: str, service: str, key: str) -> str:
    """Writes; the other side knows a repetition by its key."""
    return await _happen(service, "put", key, idempotency_key=idempotency_key)


_LIMITS = Limits(grace_seconds=1.0, kill_seconds=1.0)


@agent(tools=[peek, charge, put], risk="write", accepts_messages=True, limits=_LIMITS)
async def mixed(
    ctx: Context,
    seed: int,
    service: str,
    length: int = 6,
    depth: int = 0,
    only: list[str] | None = None,
) -> list[str]:
    """Does what the seed says, or `only` these kinds in this order."""
    parts = _parts(seed, length, tuple(only or ()), depth)
    return [await _do(ctx, part, service, depth) for part in parts]


@agent(child=True, tools=[peek, charge, put], risk="write", accepts_messages=True, limits=_LIMITS)
async def mixed_child(
    ctx: Context,
    seed: int,
    service: str,
    length: int = 6,
    depth: int = 0,
    only: list[str] | None = None,
) -> list[str]:
    """The same in a process of its own."""
    parts = _parts(seed, length, tuple(only or ()), depth)
    return [await _do(ctx, part, service, depth) for part in parts]


async def _do(ctx: Context, part: Part, service: str, depth: int) -> str:
    name, key = part.name, f"{ctx.run.id}/{part.name}"
    match part.kind:
        case "step" | "once":
            once = part.kind == "once"
            return await ctx.step(
                name, _happen, service, part.kind, key, part.seconds / 4, once=once
            )
        case "peek" | "put":
            found: str = await ctx.tool(part.kind, {"service": service, "key": key})
            return found
        case "charge":
            arguments = {"service": service, "key": key, "seconds": part.seconds / 4}
            charged: str = await ctx.tool("charge", arguments)
            return charged
        case "nap":
            await ctx.sleep(part.seconds)
        case "sleep":
            await ctx.sleep(1.1 + part.seconds)  # longer than a copy is kept for
        case "approve":
            await ctx.approve(f"approve {name}?", evidence={"part": part.number})
        case "reject":
            try:
                await ctx.approve(f"reject {name}?")
                return "approved"
            except Rejected:
                return name
        case "ask":
            return await ctx.ask(f"answer {name}?", str)
        case "operation" | "refused" | "late":
            return await _operation(ctx, part, service)
        case "message":
            [message] = await ctx.messages()
            return name if message.text == "hello" else message.text
        case "child" | "handle":
            return await _child(ctx, part, service, depth)
        case "gather":
            both = await asyncio.gather(
                ctx.step(f"{name}-a", _happen, service, "step", f"{key}-a", part.seconds / 4),
                ctx.step(f"{name}-b", _happen, service, "step", f"{key}-b"),
                ctx.tool("put", {"service": service, "key": f"{key}-c"}),
            )
            return name if list(both) == [f"{name}-a", f"{name}-b", f"{name}-c"] else str(both)
        case "timeout":
            try:
                async with asyncio.timeout(part.seconds):
                    await ctx.step(name, _happen, service, "step", key, 30.0)
                return "in time"
            except TimeoutError:
                return name
        case "flaky":
            return await ctx.step(name, _flaky, name, [], retries=2)
        case "failing":
            try:
                await ctx.step(name, _failing)
            except StepFailed:
                return name
        case "emit":
            ctx.emit(f"text of {name}")
            ctx.progress(part.number, None, "so far")
            ctx.report("part", {"number": part.number})
        case "version":
            return name if ctx.version(name, 3) == 3 else "old"
        case "file":
            await ctx.artifacts.save(f"{name}.txt", name.encode())
            return (await ctx.artifacts.read(f"{name}.txt")).decode()
    return name


async def _operation(ctx: Context, part: Part, service: str) -> str:
    expires = part.seconds if part.kind == "late" else None
    operation = await ctx.operation(part.name, schema={"type": "string"}, expires=expires)
    key = f"{ctx.run.id}/{part.name}"
    await ctx.step(f"{part.name}-sent", _hand_over, service, key, operation.token)
    try:
        result: str = await operation.result()
    except OperationFailed as failure:
        is_meant = part.kind == ("late" if failure.expired else "refused")
        return part.name if is_meant else f"failed: {failure}"
    return result


async def _child(ctx: Context, part: Part, service: str, depth: int) -> str:
    deeper = {"seed": part.seed, "service": service, "length": 2, "depth": depth + 1}
    if depth >= MAX_DEPTH:
        deeper["only"] = ["emit"]
    try:
        if part.kind == "child":
            said = await ctx.run_agent("mixed", deeper)
        else:
            handle = await ctx.start_agent("mixed", deeper)
            await ctx.step(
                f"{part.name}-meanwhile", _happen, service, "step", f"{ctx.run.id}/{part.name}"
            )
            said = await handle
    except ChildRunFailed as failure:
        return f"child {failure}"
    only = ("emit",) if depth >= MAX_DEPTH else ()
    return part.name if said == expected(part.seed, 2, only, depth + 1) else str(said)


async def _happen(service: str, do: str, key: str, after: float = 0.0, **more: Any) -> str:
    """Make an effect happen outside; the last part of its key comes back, after so many seconds."""
    host, _, port = service.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        said = {"do": do, "key": key, "after": after, **more}
        writer.write(json.dumps(said).encode() + b"\n")
        value: str = json.loads(await reader.readline())["value"]
        return value
    finally:
        writer.close()


async def _hand_over(service: str, key: str, token: str) -> str:
    return await _happen(service, "step", key, token=token)


async def _flaky(name: str, tries: list[int]) -> str:
    tries.append(1)
    if len(tries) < 2:
        raise ConnectionError("not at the first try")
    return name


async def _failing() -> str:
    raise ValueError("it never works")
