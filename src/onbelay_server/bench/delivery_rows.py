"""S1 to S4: how many events a second reach those who watch."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from onbelay_server.bench.figure import Figure, Target
from onbelay_server.bench.session import Session

Answers = dict[str, list[dict[str, Any]]]


def s1(session: Session) -> list[Figure]:
    """100 runs × 1 watcher, emitting one by one, against ready-made bytes one event a frame."""
    order = {"runs": 100, "events": session.size(1000, 300), "lead_seconds": 3.0}
    answers: Answers = defaultdict(list)
    with session.services(*session.variants, workers=128) as servers:
        for _ in range(session.rounds):
            answers["raw1"].append(
                session.sample(
                    "S1", "raw1", session.reference, "deliver", **(order | {"per_frame": 1})
                )
            )
            for variant, server in servers.items():
                answers[variant].append(session.sample("S1", variant, server, "deliver", **order))
    what, target = "100 runs × 1 watcher, one by one", Target(bound=1.0)
    return [_figure("S1", one, what, answers, "raw1", target) for one in session.variants]


def s2(session: Session) -> list[Figure]:
    """1 run × 1 watcher, 16 at a time, against the same path with a list for a store."""
    order = {"events": session.size(100_000, 30_000), "burst": 16}
    targets = {"full": Target(bound=0.3), "normal": Target(bound=0.4)}
    answers: Answers = defaultdict(list)
    with session.services(*session.variants) as servers:
        for _ in range(session.rounds):
            answers["nostore"].append(
                session.sample("S2", "nostore", session.reference, "deliver", **order)
            )
            for variant, server in servers.items():
                answers[variant].append(session.sample("S2", variant, server, "deliver", **order))
    return [
        _figure("S2", one, "1 run × 1 watcher, 16 at a time", answers, "nostore", targets.get(one))
        for one in session.variants
    ]


def s3(session: Session) -> list[Figure]:
    """1 run × 100 watchers, against ready-made bytes 128 a frame to 100 streams."""
    events = session.size(5000, 2000)
    live = {"watchers": 100, "events": events, "burst": 16, "lead_seconds": 3.0}
    raw = {"watchers": 100, "events": events, "per_frame": 128, "lead_seconds": 3.0}
    answers: Answers = defaultdict(list)
    with session.services("full") as servers:
        for _ in range(session.rounds):
            answers["raw128"].append(
                session.sample("S3", "raw128", session.reference, "deliver", **raw)
            )
            answers["full"].append(session.sample("S3", "full", servers["full"], "deliver", **live))
    return [_figure("S3", "full", "1 run × 100 watchers", answers, "raw128", Target(bound=0.5))]


def s4(session: Session) -> list[Figure]:
    """Replay of a finished run of 100,000 events, against ready-made bytes 128 a frame."""
    order: dict[str, Any] = {"events": session.size(100_000, 30_000), "times": 7}
    answers: Answers = defaultdict(list)
    with session.services("full") as servers:
        run_id = ""
        for _ in range(session.rounds):
            answers["raw128"].append(
                session.sample(
                    "S4", "raw128", session.reference, "replay", **(order | {"per_frame": 128})
                )
            )
            answer = session.sample(
                "S4", "full", servers["full"], "replay", **(order | {"run_id": run_id})
            )
            run_id = answer["run_id"]
            answers["full"].append(answer)
    what = f"replay of {order['events']:,} events"
    return [_figure("S4", "full", what, answers, "raw128", Target(bound=0.8))]


def _figure(
    row: str, variant: str, what: str, answers: Answers, limit: str, target: Target | None
) -> Figure:
    return Figure(
        row=row,
        variant=variant,
        what=what,
        unit="events/s",
        samples=[answer["rate"] for answer in answers[variant]],
        limit=limit,
        limit_samples=[answer["rate"] for answer in answers[limit]],
        target=target,
        details=answers[variant][-1],
    )
