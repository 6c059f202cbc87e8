"""Random agent programs over everything asyncio offers, run by an agent that interprets them.

`python -m tests.property.replay_programs --programs 10000 [--first SEED] [--points N]` crashes each
at its record prefixes, suspends it at every wait, stops it at random times, and prints counts.

Longer than 350 lines: one interpreter, with a method for each thing that asyncio offers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any

from onbelay_agent import AgentCallError, Context, OperationFailed, agent
from tests.property.replay_world import Mismatch, World

Program = list[Any]


class Oops(Exception):
    """What programs raise."""


class Generator:
    """Builds one program from a seed."""

    LEAVES = ("step", "step", "step", "bad", "tool", "sleep", "emit", "approve", "ask")
    RARE = (
        "save",
        "read",
        "chance",
        "raise",
        "yield",
        "once",
        "close",
        "large",
        "retry",
        "child",
        "operation",
        "messages",
        "version",
    )
    GROUPS = (
        "seq",
        "gather",
        "gather_all",
        "group",
        "completed",
        "first",
        "all",
        "wait_for",
        "timeout",
        "cancel",
        "queue",
        "lock",
        "event",
        "semaphore",
        "shared",
        "try",
        "finally",
        "generator",
        "forget",
        "named",
        "condition",
        "shield",
        "barrier",
        "beside",
        "opened",
    )

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.number = 0
        self.left = self.rng.choice((6, 12, 20, 30))

    def program(self) -> Program:
        return ["seq", [self.op(0) for _ in range(self.rng.randint(1, 4))]]

    def op(self, depth: int) -> Program:
        rng = self.rng
        self.number += 1
        number = self.number
        self.left -= 1
        if depth >= 4 or self.left <= 0 or rng.random() < 0.35:
            leaf = rng.choice(self.LEAVES if rng.random() < 0.85 else self.RARE)
            return [leaf, number, rng.randint(0, 9)]
        group = rng.choice(self.GROUPS)
        count = rng.randint(1, 2) if group in ("wait_for", "timeout", "try") else rng.randint(2, 4)
        return [group, [self.op(depth + 1) for _ in range(count)], number, rng.randint(0, 9)]


class Interpreter:
    """Runs a program with a context; everything it sees goes to `out`."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.out: list[Any] = []
        self.shared = 0
        self.tasks: list[asyncio.Task[Any]] = []

    async def run(self, op: Program) -> Any:
        result = await getattr(self, "do_" + op[0])(*op[1:])
        self.shared += 1
        self.out.append([op[0], op[-2] if len(op) > 2 else 0, result, self.shared])
        return result

    def spawn(self, op: Program, name: str | None = None) -> asyncio.Task[Any]:
        return asyncio.create_task(self.run(op), name=name)

    # ---- leaves ----------------------------------------------------------------------------------

    async def do_step(self, number: int, value: int) -> Any:
        return await self.ctx.step(f"s{value % 3}", effect, number, value)

    async def do_bad(self, number: int, value: int) -> Any:
        return await self.ctx.step(f"s{value % 3}", failing, number, value)

    async def do_once(self, number: int, value: int) -> Any:
        return await self.ctx.step("once", effect, number, value, once=True)

    async def do_large(self, number: int, value: int) -> Any:
        return len(await self.ctx.step("large", large, number, value))

    async def do_retry(self, number: int, value: int) -> Any:
        tries: list[int] = []
        step = self.ctx.step(f"r{value % 2}", wavering, self.ctx, tries, number, value, retries=2)
        return await step

    async def do_child(self, number: int, value: int) -> Any:
        return await self.ctx.run_agent(f"c{value % 2}", {"number": number}, returns=int)

    async def do_operation(self, number: int, value: int) -> Any:
        return await (await self.ctx.operation(f"o{value % 2}", int, value + 1))

    async def do_messages(self, number: int, value: int) -> Any:
        return [message.text for message in await self.ctx.messages(wait=value % 2 == 0)]

    async def do_version(self, number: int, value: int) -> Any:
        chosen = self.ctx.version(f"v{value % 2}", value + 1)
        if chosen % 2:
            await self.ctx.step("versioned", effect, number, chosen)
        return chosen

    async def do_tool(self, number: int, value: int) -> Any:
        if value < 3:
            return await self.ctx.tools([("t", {"n": number}), ("u", {"n": value})])
        return await self.ctx.tool("t", {"n": number})

    async def do_sleep(self, number: int, value: int) -> Any:
        await (asyncio.sleep(value) if value % 2 else self.ctx.sleep(value))
        return self.ctx.now().isoformat()

    async def do_emit(self, number: int, value: int) -> Any:
        self.ctx.emit(f"{number} {self.shared}")
        self.ctx.progress(value, 9)

    async def do_approve(self, number: int, value: int) -> Any:
        return (await self.ctx.approve(f"a{number}", str(self.shared))).comment

    async def do_ask(self, number: int, value: int) -> Any:
        return await self.ctx.ask(f"q{number}", int)

    async def do_save(self, number: int, value: int) -> Any:
        return (await self.ctx.artifacts.save(f"f{value % 2}", f"{number} {self.shared}")).sha256

    async def do_read(self, number: int, value: int) -> Any:
        return (await self.ctx.artifacts.read(f"f{value % 2}")).decode()

    async def do_chance(self, number: int, value: int) -> Any:
        return [self.ctx.random.random(), str(self.ctx.uuid())]

    async def do_raise(self, number: int, value: int) -> Any:
        raise Oops(number)

    async def do_yield(self, number: int, value: int) -> Any:
        for _ in range(value):
            await asyncio.sleep(0)

    async def do_close(self, number: int, value: int) -> Any:
        self.ctx.step("never", effect, number, value).close()

    # ---- structure -------------------------------------------------------------------------------

    async def do_seq(self, ops: Program, *_: Any) -> Any:
        return [await self.run(op) for op in ops][-1]

    async def do_gather(self, ops: Program, *_: Any) -> Any:
        return await asyncio.gather(*[self.run(op) for op in ops])

    async def do_gather_all(self, ops: Program, *_: Any) -> Any:
        results = await asyncio.gather(*map(self.run, ops), return_exceptions=True)
        return [told(result) for result in results]

    async def do_group(self, ops: Program, *_: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.run(op)) for op in ops]
        return [task.result() for task in tasks]

    async def do_completed(self, ops: Program, number: int, value: int) -> Any:
        seen = []
        for next_done in asyncio.as_completed([self.spawn(op) for op in ops]):
            try:
                seen.append(await next_done)
            except Exception as error:  # noqa: BLE001 - told in the output
                seen.append(told(error))
            if value < 3:
                break
        return seen

    async def do_first(self, ops: Program, number: int, value: int) -> Any:
        tasks = {self.spawn(op) for op in ops}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
            self.out.append(["cancelled", task.get_coro() is not None])
        if value % 2 and pending:
            await asyncio.wait(pending)
        return [told(task.exception() or task.result()) for task in done if not task.cancelled()]

    async def do_all(self, ops: Program, number: int, value: int) -> Any:
        done, pending = await asyncio.wait({self.spawn(op) for op in ops}, timeout=value + 1)
        self.tasks += pending
        return [told(t.exception() or t.result()) for t in done if not t.cancelled()]

    async def do_wait_for(self, ops: Program, number: int, value: int) -> Any:
        return await asyncio.wait_for(self.do_seq(ops), value)

    async def do_timeout(self, ops: Program, number: int, value: int) -> Any:
        async with asyncio.timeout(value):
            return await self.do_seq(ops)

    async def do_cancel(self, ops: Program, *_: Any) -> Any:
        task = self.spawn(ops[0])
        await self.run(ops[1])
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
        return task.cancelled()

    async def do_queue(self, ops: Program, *_: Any) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue(1)

        async def produce() -> None:
            for op in ops:
                await queue.put([await self.guarded(op)])
            await queue.put(None)

        producer = asyncio.create_task(produce())
        seen = []
        while (item := await queue.get()) is not None:
            seen.append(item)
        await producer
        return seen

    async def do_lock(self, ops: Program, number: int, value: int) -> Any:
        lock: Any = asyncio.Lock()

        async def locked(op: Program) -> Any:
            async with lock:
                return await self.run(op)

        return await asyncio.gather(*map(locked, ops))

    async def do_semaphore(self, ops: Program, *_: Any) -> Any:
        semaphore = asyncio.Semaphore(2)

        async def limited(op: Program) -> Any:
            async with semaphore:
                return await self.run(op)

        return await asyncio.gather(*map(limited, ops), return_exceptions=False)

    async def do_event(self, ops: Program, *_: Any) -> Any:
        event = asyncio.Event()

        async def waits() -> Any:
            await event.wait()
            return await self.run(ops[-1])

        task = asyncio.create_task(waits())
        for op in ops[:-1]:
            await self.guarded(op)
        event.set()
        return await task

    async def do_condition(self, ops: Program, *_: Any) -> Any:
        condition = asyncio.Condition()

        async def waits(op: Program) -> Any:
            async with condition:
                await condition.wait()
            return await self.run(op)

        tasks = [asyncio.create_task(waits(op)) for op in ops[1:]]
        await self.guarded(ops[0])
        async with condition:
            condition.notify_all()
        return await asyncio.gather(*tasks)

    async def do_barrier(self, ops: Program, *_: Any) -> Any:
        barrier = asyncio.Barrier(len(ops))

        async def meets(op: Program) -> Any:
            await self.guarded(op)
            return await barrier.wait()

        return await asyncio.gather(*map(meets, ops))

    async def do_shield(self, ops: Program, number: int, value: int) -> Any:
        inner = self.spawn(ops[0])
        self.tasks.append(inner)
        return await asyncio.wait_for(asyncio.shield(inner), value + 1)

    async def do_beside(self, ops: Program, number: int, value: int) -> Any:
        child = await self.ctx.start_agent("b", {"number": number})
        first = await self.guarded(ops[0])
        try:
            async with asyncio.timeout(value + 1):
                return [first, await child]
        except TimeoutError:
            return [first, await self.guarded(ops[1]), await child.result()]

    async def do_opened(self, ops: Program, number: int, value: int) -> Any:
        operation = await self.ctx.operation("p")
        first = await self.guarded(ops[0])
        try:
            return [first, *await asyncio.gather(operation, self.run(ops[1]))]
        except OperationFailed as failed:
            return [first, failed.expired]

    async def do_shared(self, ops: Program, *_: Any) -> Any:
        return await self.run(ops[self.shared % len(ops)])

    async def do_try(self, ops: Program, *_: Any) -> Any:
        return await self.guarded(["seq", ops])

    async def do_finally(self, ops: Program, *_: Any) -> Any:
        try:
            return await self.run(ops[0])
        finally:
            await self.run(ops[1])

    async def do_generator(self, ops: Program, number: int, value: int) -> Any:
        async def results() -> AsyncGenerator[Any, None]:
            for op in ops:
                yield await self.guarded(op)

        seen = []
        async with contextlib.aclosing(results()) as items:
            async for item in items:
                seen.append(item)
                if value < 2:
                    break
        return seen

    async def do_forget(self, ops: Program, *_: Any) -> Any:
        self.tasks += [self.spawn(op) for op in ops[1:]]
        return await self.run(ops[0])

    async def do_named(self, ops: Program, number: int, value: int) -> Any:
        tasks = [self.spawn(op, name=f"n/{value % 2}") for op in ops]
        return [told(result) for result in await asyncio.gather(*tasks, return_exceptions=True)]

    async def guarded(self, op: Program) -> Any:
        try:
            return await self.run(op)
        except (AgentCallError, TimeoutError, Oops, ExceptionGroup) as error:
            return told(error)


async def effect(number: int, value: int) -> Any:
    await World.current().effect(number)
    return [number, value]


async def failing(number: int, value: int) -> Any:
    await World.current().effect(number)
    raise Oops(f"{number} {value}")


async def wavering(ctx: Context, tries: list[int], number: int, value: int) -> Any:
    tries.append(number)
    ctx.emit(f"try {len(tries)}")
    if len(tries) == 1:
        await World.current().effect(number)
    if len(tries) <= value % 4:
        raise Oops(number)
    return len(tries)


async def large(number: int, value: int) -> str:
    await World.current().effect(number)
    return "x" * (300_000 + value)


def told(result: Any) -> Any:
    if isinstance(result, BaseExceptionGroup):
        return [type(result).__name__, sorted(str(told(e)) for e in result.exceptions)]
    return f"{type(result).__name__} {result}" if isinstance(result, BaseException) else result


@agent(accepts_messages=True)
async def program(ctx: Context, seed: int) -> list[Any]:
    """Interprets the program of a seed."""
    interpreter = Interpreter(ctx)
    try:
        await interpreter.run(Generator(seed).program())
    except (AgentCallError, TimeoutError, Oops, ExceptionGroup) as error:
        if seed % 3 == 0:
            raise
        interpreter.out.append(told(error))
    return interpreter.out


async def check(seed: int, points: int, counts: Counter[str]) -> None:
    """Run the program of a seed undisturbed and then in every disturbed way. Raises Mismatch."""
    rng = random.Random(seed * 7919)
    baseline = await World(program, seed, rng).undisturbed()
    counts["programs"] += 1
    counts[baseline.outcome] += 1
    counts["records"] += baseline.record_count
    prefixes = list(range(len(baseline.units)))
    for prefix in prefixes if len(prefixes) <= points else sorted(rng.sample(prefixes, points)):
        again = rng.randrange(1, 8) if rng.random() < 0.3 else None
        with located(f"killed after commit {prefix}, then {again}"):
            await World(program, seed, rng).crashed(baseline, prefix, again)
        counts["crash points"] += 1
    with located("suspended at every wait"):
        await World(program, seed, rng).crashed(baseline, 0, None, suspend=True)
    counts["suspended"] += 1
    for pause in (1.0, 0.3):
        with located(f"paused at {pause:.0%} of the boundaries"):
            world = World(program, seed, rng)
            await world.crashed(baseline, rng.choice([0, *prefixes]), None, pause=pause)
        counts["pauses"] += world.pauses
    after = rng.randrange(len(baseline.units) + 1)
    with located(f"stopped after commit {after}"):
        await World(program, seed, rng).stopped(after)
    counts["stopped"] += 1


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Say in a Mismatch where it was."""
    try:
        yield
    except Mismatch as error:
        raise Mismatch(f"{where}: {error}") from error


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--points", type=int, default=12)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    began = time.monotonic()
    failures = 0
    for seed in range(options.first, options.first + options.programs):
        if counts["programs"] % 1000 == 999:
            print(f"seed {seed}: {dict(counts)}", file=sys.stderr, flush=True)
        try:
            run(check(seed, options.points, counts))
        except Mismatch as error:
            failures += 1
            print(f"seed {seed}: {error}\n  {Generator(seed).program()}", flush=True)
            if failures >= 20:
                break
    seconds = time.monotonic() - began
    python = ".".join(map(str, sys.version_info[:2]))
    print(f"Python {python}: {dict(counts)}; {failures} failures; {seconds:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
