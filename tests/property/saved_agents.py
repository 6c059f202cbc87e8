"""The agents whose journals are kept. `python -m tests.property.saved_agents NAME…` records those
anew; a journal that is kept is never changed without need, or it would prove nothing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from onbelay_agent import Context, OperationFailed, Rejected, StepFailed, agent
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.testing import TestRun, answer, approve, completes, expires, reject

JOURNALS = Path(__file__).parent / "journals"


async def double(value: int) -> int:
    return 2 * value


async def fail(value: int) -> int:
    raise ValueError(f"not {value}")


@agent
async def sequence(ctx: Context) -> list[Any]:
    values: list[Any] = [await ctx.step("double", double, number) for number in range(3)]
    try:
        await ctx.step("fail", fail, 3, retries=1)
    except StepFailed as failed:
        values.append(failed.error_type)
    await ctx.artifacts.save("notes.txt", f"{values}")
    values.append((await ctx.artifacts.read("notes.txt")).decode())
    return [*values, ctx.now().isoformat(), ctx.random.randint(1, 100), str(ctx.uuid())]


@agent
async def people(ctx: Context) -> list[Any]:
    said: list[Any] = [(await ctx.approve("go?", "there", {"x": 1})).comment]
    try:
        await ctx.approve("really?")
    except Rejected as no:
        said.append(no.comment)
    return [*said, await ctx.ask("how many?", int)]


@agent
async def crowd(ctx: Context) -> list[Any]:
    seen: list[Any] = []

    async def worker(number: int) -> None:
        await ctx.sleep(number % 3)
        seen.append(await ctx.step("double", double, number))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(worker(number))
    try:
        async with asyncio.timeout(5):
            await ctx.sleep(60)
    except TimeoutError:
        seen.append("timeout")
    tasks = {asyncio.create_task(ctx.step("late", double, n)) for n in range(4)}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return [*seen, sorted(task.result() for task in done)]


@agent
async def small(ctx: Context, number: int) -> int:
    await ctx.sleep(10)
    return await ctx.step("double", double, number)


@agent(accepts_messages=True)
async def elsewhere(ctx: Context) -> list[Any]:
    told: list[Any] = [ctx.version("told", 3)]
    children = [await ctx.start_agent(small, {"number": number}) for number in range(3)]
    job, late = await ctx.operation("job", int), await ctx.operation("late", expires=60)
    told += [message.text for message in await ctx.messages()]
    told += await asyncio.gather(*children, job)
    try:
        await late
    except OperationFailed as failed:
        told.append(failed.reason)
    return [*told, await ctx.messages(wait=False), ctx.version("told", 9)]


AGENTS: dict[str, AgentDefinition] = {
    "sequence": sequence,
    "people": people,
    "crowd": crowd,
    "elsewhere": elsewhere,
}


def run_of(name: str) -> TestRun:
    """The agent with all it meets."""
    return TestRun(
        AGENTS[name],
        agents=[small],
        people=[approve("yes"), reject("no"), answer(7)],
        operations={"job": completes(5), "late": expires()},
        messages=["hello"],
    )


def main() -> None:
    JOURNALS.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        journal = run_of(name).execute().journal
        (JOURNALS / f"{name}.json").write_text(journal.to_json() + "\n")


if __name__ == "__main__":
    main()
