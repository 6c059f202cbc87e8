"""The log of a program against the same program, changed in one place.

`python -m tests.property.replay_mutations --programs 2000` prints how many real differences were
found, and that no harmless one was taken for a real one.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import sys
from collections import Counter
from typing import Any

from onbelay_agent import Context, agent, values
from tests.property.replay_programs import Generator, Interpreter, Oops, Program, effect, run, told
from tests.property.replay_world import World

STEPS = {"step": "s", "bad": "s"}
REAL = ("other argument", "renamed", "left out", "added before")


class ChangedInterpreter(Interpreter):
    """Runs also what mutations put in, without counting it as done."""

    async def run(self, op: Program) -> Any:
        match op[0]:
            case "told":
                self.ctx.emit(f"new {op[2]}")
                return await self.run(op[1])
            case "computed":
                sorted(range(op[2]))
                return await self.run(op[1])
            case "preceded":
                await self.ctx.step("new", effect, op[2], 0)
                return await self.run(op[1])
        return await super().run(op)

    async def do_nothing(self, number: int, value: int) -> Any:
        return None


@agent(accepts_messages=True, name="program")
async def changed(ctx: Context, seed: int) -> list[Any]:
    """Interprets the program that the world holds."""
    interpreter = ChangedInterpreter(ctx)
    try:
        await interpreter.run(programs[seed])
    except Exception as error:
        if seed % 3 == 0:
            raise Oops(str(told(error))) from error
        interpreter.out.append(told(error))
    return interpreter.out


programs: dict[int, Program] = {}
"""What `changed` runs, by seed."""


def leaves(op: Program) -> list[Program]:
    """The leaves of a program."""
    if len(op) == 3 and isinstance(op[1], int):
        return [op]
    return [leaf for inner in op[1] for leaf in leaves(inner)]


def digest(leaf: Program) -> str:
    """Of the step that a leaf asks for."""
    name = f"{STEPS[leaf[0]]}{leaf[2] % 3}"
    return values.digest(f"{name}\n{False}\n{values.fingerprint_of((leaf[1], leaf[2]))}")


def mutated(program: Program, leaf: Program, how: str) -> Program:
    """The program, changed at one leaf."""
    replacements = {
        "other argument": [leaf[0], leaf[1], leaf[2] + 3],
        "renamed": [leaf[0], leaf[1], leaf[2] + 1],
        "left out": ["nothing", leaf[1], leaf[2]],
        "added before": ["preceded", leaf, leaf[1]],
        "other emit": ["emit", leaf[1], leaf[2] + 1],
        "added emit": ["told", leaf, leaf[1]],
        "computes more": ["computed", leaf, leaf[1]],
    }

    def rebuilt(op: Program) -> Program:
        if op is leaf:
            return list(replacements[how])
        if len(op) == 3 and isinstance(op[1], int):
            return op
        return [op[0], [rebuilt(inner) for inner in op[1]], *op[2:]]

    return rebuilt(program)


async def check_mutations(seed: int, counts: Counter[str]) -> None:
    """Replay the whole log of a program with each kind of change, at a place of chance.

    A real change is one of a step that the log holds; all others are harmless."""
    rng = random.Random(seed)
    original = Generator(seed).program()
    programs[seed] = copy.deepcopy(original)
    baseline = await World(changed, seed, random.Random(seed)).undisturbed()
    starts = {record.step_id for unit in baseline.units for record in unit.records}
    recorded = {i.digest for i in baseline.intents.values() if i.id in starts and not i.cancelled}
    steps = [leaf for leaf in leaves(original) if leaf[0] in STEPS]
    reached = [leaf for leaf in steps if digest(leaf) in recorded]
    emits = [leaf for leaf in leaves(original) if leaf[0] == "emit"]
    chosen = [(how, reached, True) for how in REAL] + [
        ("other emit", emits, False),
        ("added emit", leaves(original), False),
        ("computes more", leaves(original), False),
    ]
    for how, places, is_real in chosen:
        if places:
            programs[seed] = mutated(original, rng.choice(places), how)
            verdict = await World(changed, seed, random.Random(seed)).replayed(baseline)
            counts[f"{'real' if is_real else 'harmless'}: {how}: {verdict}"] += 1
            counts[f"{'real' if is_real else 'harmless'} {verdict == 'diverged'}"] += 1
            if is_real != (verdict == "diverged"):
                counts["surprises"] += 1
                print(f"seed {seed}: {how}: {verdict}\n  {json.dumps(original)}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=500)
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    for seed in range(options.first, options.first + options.programs):
        run(check_mutations(seed, counts))
    for name, count in sorted(counts.items()):
        print(f"{count:7} {name}")
    return 1 if counts["harmless True"] else 0


if __name__ == "__main__":
    sys.exit(main())
