"""S5 to S8 and S11: how many calls, and how long one waits."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from onbelay_server.bench.failure import BenchFailed
from onbelay_server.bench.figure import Figure, Target
from onbelay_server.bench.processes import client_job, measured
from onbelay_server.bench.session import Session

Answers = dict[str, list[dict[str, Any]]]
_HOLD_SECONDS = 0.5


def s5(session: Session) -> list[Figure]:
    """StartRun at concurrency 64 with dispatch paused, against an echo of the same bytes.

    It is paused by giving the server one worker and a run that keeps it busy."""
    order = {"calls": session.size(3000, 1000), "concurrency": 64}
    targets = {"full": Target(bound=0.45), "normal": Target(bound=0.6)}
    answers: Answers = defaultdict(list)
    with session.services(*session.variants, workers=1) as servers:
        for server in servers.values():
            measured(server, "call", calls=1, concurrency=1, agent="bench-holder")
        time.sleep(_HOLD_SECONDS)
        for _ in range(session.rounds):
            answers["echo"].append(session.sample("S5", "echo", session.reference, "call", **order))
            for variant, server in servers.items():
                answers[variant].append(session.sample("S5", variant, server, "call", **order))
    return [
        _figure("S5", one, "StartRun at 64", "calls/s", "rate", answers, "echo", targets.get(one))
        for one in session.variants
    ]


def s6(session: Session) -> list[Figure]:
    """From StartRun to the run's first event at its watcher, against an echo, one at a time."""
    count = session.size(200, 60)
    targets = {"full": Target(bound=4, is_most=True), "normal": Target(bound=3, is_most=True)}
    answers: Answers = defaultdict(list)
    with session.services(*session.variants) as servers:
        for _ in range(session.rounds):
            answers["echo"].append(
                session.sample(
                    "S6", "echo", session.reference, "call", calls=count * 5, concurrency=1
                )
            )
            for variant, server in servers.items():
                answers[variant].append(
                    session.sample("S6", variant, server, "first_event", count=count)
                )
    limits = [answer["p50_us"] for answer in answers["echo"]]
    figures = []
    for variant in session.variants:
        for key, what, target in (
            ("first_p50_us", "StartRun → first event, p50", targets.get(variant)),
            ("emitted_p50_us", "StartRun → first event of the agent, p50", None),
        ):
            figures.append(
                Figure(
                    row="S6",
                    variant=variant,
                    what=what,
                    unit="µs",
                    samples=[answer[key] for answer in answers[variant]],
                    limit="echo",
                    limit_samples=limits,
                    target=target,
                )
            )
    return figures


def s7_and_s8(session: Session) -> list[Figure]:
    """Emit → receive with 100 runs × 50 events a second, against a list for a store: p50, p99."""
    order = {
        "runs": 100,
        "events": session.size(300, 100),
        "interval": 0.02,
        "lead_seconds": 3.0,
    }
    middle = {"full": Target(bound=3, is_most=True), "normal": Target(bound=2, is_most=True)}
    slow = Target(bound=3, is_most=True)
    answers: Answers = defaultdict(list)
    with session.services(*session.variants, workers=128) as servers:
        for _ in range(session.rounds):
            answers["nostore"].append(
                session.sample("S7", "nostore", session.reference, "deliver", **order)
            )
            for variant, server in servers.items():
                answers[variant].append(session.sample("S7", variant, server, "deliver", **order))
    what = "emit → receive, 100 runs × 50/s"
    return [
        _figure("S7", one, f"{what}, p50", "µs", "p50_us", answers, "nostore", middle.get(one))
        for one in session.variants
    ] + [
        _figure("S8", one, f"{what}, p99", "µs", "p99_us", answers, "nostore", slow)
        for one in session.variants
    ]


def s11(session: Session) -> list[Figure]:
    """StartRun while 200 runs stream 25 events a second each, against StartRun when idle."""
    seconds = session.size(10, 5)
    load = {"runs": 200, "events": 25 * (seconds + 6), "interval": 0.04, "lead_seconds": 5.0}
    probe = {
        "calls": 100,
        "concurrency": 1,
        "pause_seconds": 0.02,
        "longest_seconds": float(seconds),
    }
    idle, busy = [], []
    with session.services("full", workers=512) as servers:
        server = servers["full"]
        for _ in range(session.rounds):
            idle.append(session.sample("S11", "idle", server, "call", **probe))
            began = time.monotonic()
            with client_job(server, "deliver", **load) as streaming:
                time.sleep(load["lead_seconds"] + 1.5)
                busy.append(session.sample("S11", "busy", server, "call", **probe))
                took = time.monotonic() - began
                if took > load["lead_seconds"] + load["events"] * load["interval"]:
                    raise BenchFailed("S11: the load ended before the probe did")
                streaming.answer()
    return [
        Figure(
            row="S11",
            variant="full",
            what="StartRun p50 while 200 runs × 25/s stream",
            unit="µs",
            samples=[answer["p50_us"] for answer in busy],
            limit="idle p50",
            limit_samples=[answer["p50_us"] for answer in idle],
            target=Target(bound=3, is_most=True),
            details={"busy_p99_us": busy[-1]["p99_us"], "idle_p99_us": idle[-1]["p99_us"]},
        )
    ]


def _figure(
    row: str,
    variant: str,
    what: str,
    unit: str,
    key: str,
    answers: Answers,
    limit: str,
    target: Target | None,
) -> Figure:
    return Figure(
        row=row,
        variant=variant,
        what=what,
        unit=unit,
        samples=[answer[key] for answer in answers[variant]],
        limit=limit,
        limit_samples=[answer[key] for answer in answers[limit]],
        target=target,
        details=answers[variant][-1],
    )
