"""S9, S10, S12 and S13: memory, durable steps, and cost against size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from onbelay_server.bench.figure import Figure, Target
from onbelay_server.bench.processes import Server, client_job
from onbelay_server.bench.redacting import DUMMY_US
from onbelay_server.bench.rival import dbos_steps
from onbelay_server.bench.session import Session

SETTLE_SECONDS = 3.0
WARM_RUNS = 200
STEP_RUNS = 16
RIVAL_FACTOR = 10.0
REDACTING = "onbelay_server.bench.redacting"
SLACK = 0.8
"""A larger size may be this much slower than the smallest."""


def s9(session: Session) -> list[Figure]:
    """Resident memory of a server per run that waits for a person and per watcher of one."""
    count = session.size(2000, 500)
    watchers = session.size(1000, 300)
    per_run, per_watcher = [], []
    for _ in range(session.rounds):
        with session.services("full") as servers:
            server = servers["full"]
            # Imports, caches and pools are paid by the first ones.
            warm = session.sample("S9", "warm", server, "park", runs=WARM_RUNS)["run_ids"]
            _held(server, warm[:100])
            empty = _settled(server)
            run_ids = session.sample("S9", "park", server, "park", runs=count)["run_ids"]
            parked = _settled(server)
            per_run.append((parked - empty) / count)
            watched = (run_ids * 2)[:watchers]
            per_watcher.append((_held(server, watched) - parked) / watchers)
            session.say(f"S9 bytes a run {per_run[-1]:,.0f}, a watcher {per_watcher[-1]:,.0f}")
    return [
        Figure(
            row="S9",
            variant="full",
            what=what,
            unit="KB",
            samples=[one / 1024 for one in samples],
            target=Target(bound=bound, is_most=True),
        )
        for what, samples, bound in (
            ("resident memory per idle watcher", per_watcher, 25),
            ("resident memory per waiting run", per_run, 8),
        )
    ]


def _settled(server: Server) -> int:
    time.sleep(SETTLE_SECONDS)
    return server.rss_bytes


def _held(server: Server, run_ids: Sequence[str]) -> int:
    """The server's memory while each of these runs has a watcher."""
    with client_job(server, "hold", run_ids=list(run_ids)) as client:
        client.answer()
        size = _settled(server)
        client.say()
        client.answer()
    return size


def s10(session: Session) -> list[Figure]:
    """Recorded steps a second, 16 runs at once, on SQLite FULL; a library's on the same disk."""
    order = {"runs": STEP_RUNS, "steps": session.size(500, 150)}
    samples, rival = [], []
    with session.services("full") as servers:
        for _ in range(session.rounds):
            answer = session.sample("S10", "full", servers["full"], "steps", **order)
            samples.append(answer["rate"])
            if session.dbos_python is not None:
                rival.append(dbos_steps(session.dbos_python, runs=STEP_RUNS, steps=60))
                session.say(f"S10 dbos: rate {rival[-1]:,.0f}")
    what = "recorded steps, 16 runs at once"
    common: dict[str, Any] = {"row": "S10", "variant": "full", "unit": "steps/s"}
    least = Figure(what=what, samples=samples, target=Target(bound=4000), **common)
    more = Figure(
        what=f"{what}, against a durable-execution library",
        samples=samples if rival else (),
        limit="dbos",
        limit_samples=rival,
        target=Target(bound=RIVAL_FACTOR),
        details={} if rival else {"skipped": "give --dbos an interpreter that has the package"},
        **common,
    )
    return [least, more]


def s12(session: Session) -> list[Figure]:
    """Events a second against the length of a run, live and replayed, and the number of runs."""
    lengths = [10**3, 10**4, 10**5] + ([] if session.is_quick else [10**6])
    crowds = [1, 10, 100] + ([] if session.is_quick else [1000])
    total = session.size(100_000, 20_000)
    live: dict[int, list[float]] = {length: [] for length in lengths}
    replayed: dict[int, list[float]] = {length: [] for length in lengths}
    crowded: dict[int, list[float]] = {crowd: [] for crowd in crowds}
    # A run of a million events takes long enough to be its own average.
    rounds = {10**6: 1}
    with session.services("full", workers=1100) as servers:
        server = servers["full"]
        for turn in range(session.rounds):
            for crowd in crowds:
                order = {"runs": crowd, "events": total // crowd, "burst": 16}
                lead = 2.0 + crowd * 0.015
                answer = session.sample(
                    "S12", f"{crowd} runs", server, "deliver", **order, lead_seconds=lead
                )
                crowded[crowd].append(answer["rate"])
            for length in lengths:
                if turn >= rounds.get(length, session.rounds):
                    continue
                order = {"events": length, "burst": 16}
                for _ in range(max(1, 5000 // length)):
                    answer = session.sample("S12", f"length {length}", server, "deliver", **order)
                    live[length].append(answer["rate"])
                times = max(3, min(20, 10**5 // length))
                answer = session.sample(
                    "S12", f"replay {length}", server, "replay", events=length, times=times
                )
                replayed[length].append(answer["rate"])
    return [
        *_curve("live events by run length", live),
        *_curve("replayed events by run length", replayed),
        *_curve("live events by number of runs", crowded),
    ]


def _curve(what: str, samples: dict[int, list[float]]) -> list[Figure]:
    smallest = min(samples)
    return [
        Figure(
            row="S12",
            variant=f"{size:,}",
            what=what,
            unit="events/s",
            samples=found,
            limit=f"at {smallest:,}",
            limit_samples=samples[smallest],
            target=Target(bound=SLACK) if size > smallest else None,
        )
        for size, found in samples.items()
    ]


def s13(session: Session) -> list[Figure]:
    """Redaction on against off, row S1: empty until the service has a redactor. In its place, and
    without a target, one that does nothing and takes DUMMY_US for each text."""
    session.say("S13: there is no redactor yet, a dummy stands in its place")
    order = {"runs": 100, "events": session.size(1000, 300), "lead_seconds": 3.0}
    plain, dummy = [], []
    with (
        session.services("full", workers=128) as off,
        session.services("full", workers=128, module=REDACTING) as on,
    ):
        for _ in range(session.rounds):
            plain.append(session.sample("S13", "off", off["full"], "deliver", **order)["rate"])
            dummy.append(session.sample("S13", "dummy", on["full"], "deliver", **order)["rate"])
    return [
        Figure(
            row="S13",
            variant="full",
            what=f"S1 with a dummy of {DUMMY_US} µs a text",
            unit="events/s",
            samples=dummy,
            limit="off",
            limit_samples=plain,
        ),
        Figure(
            row="S13",
            variant="full",
            what="S1 with redaction on (no redactor yet)",
            unit="events/s",
            samples=(),
            limit="off",
            target=Target(bound=0.85),
        ),
    ]
