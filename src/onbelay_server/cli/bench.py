"""`onbelay bench`: what the event path costs on this machine, against limits measured beside it."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from onbelay_server.bench.processes import reference_server
from onbelay_server.bench.report import draw, markdown, table
from onbelay_server.bench.session import ROUNDS, Session
from onbelay_server.bench.suite import ROWS, Findings, run_rows
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.terminal import err, out

app = typer.Typer()

_WIDTH = 150


@app.command("bench")
def bench(
    only: Annotated[list[str] | None, typer.Option(help="A row, such as S4; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes: a first look.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each.")] = ROUNDS,
    postgres: Annotated[
        str | None,
        typer.Option(help="postgresql://… where it may make databases."),
    ] = None,
    dbos: Annotated[
        Path | None, typer.Option(help="A Python that has dbos, to compare S10.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no table.")] = False,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for bench.json, bench.md and bench.svg.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="A row: measure it once with the server under a profiler, print that."),
    ] = None,
) -> None:
    """Measure the event path, and print how it stands to its targets.

    Servers and clients are started as processes of their own, on loopback, with temporary state.
    Ends with 1 when a stream delivered too few, too many or unordered events, and says which;
    a target that is missed is a finding, no failure.
    """
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    names = _rows([profile] if profile else only or [])
    if profile:
        _profile(names, is_quick=quick)
        return
    with reference_server() as reference:
        session = Session(
            reference=reference,
            say=_say,
            is_quick=quick,
            rounds=rounds,
            postgres=postgres,
            dbos_python=dbos,
        )
        findings = run_rows(session, names)
    if output is not None:
        _write(findings, output)
    if as_json:
        sys.stdout.write(json.dumps(findings.as_json(), indent=1) + "\n")
    else:
        _print(findings)
    _complain(findings)


def _rows(names: list[str]) -> list[str]:
    found = [name.upper() for name in names]
    for name in found:
        if name not in ROWS:
            raise CommandFailed(f"no such row: {name}; there are {', '.join(ROWS)}", ExitCode.USAGE)
    return found


def _complain(findings: Findings) -> None:
    """A missed target is a finding; a wrong delivery is a failure."""
    if findings.failures:
        raise CommandFailed("; ".join(f"{row}: {why}" for row, why in findings.failures.items()))


def _print(findings: Findings) -> None:
    facts = findings.machine
    console = out() if sys.stdout.isatty() else Console(file=sys.stdout, width=_WIDTH)
    console.print(table(findings))
    before, after = (facts[name][0] for name in ("load_average", "load_average_after"))
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}, "
        f"SQLite {facts['sqlite']}, fsync {facts['sync_us']['p50']:,.0f} µs",
        f"load {before} before, {after} after; {len(findings.missed)} missed",
    ]
    console.print(Text("\n".join(lines)))


def _write(findings: Findings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(findings.as_json(), indent=1) + "\n")
    (folder / "bench.md").write_text(markdown(findings))
    try:
        draw(findings, folder / "bench.svg")
    except ImportError:
        _say("no picture: matplotlib is not installed")


def _profile(names: list[str], *, is_quick: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="onbelay-bench-") as made:
        path = Path(made) / "profile"
        with reference_server() as reference:
            session = Session(
                reference=reference, say=_say, is_quick=is_quick, rounds=1, profile=path
            )
            _complain(run_rows(session, names))
        sys.stdout.write(path.read_text())


def _say(line: str) -> None:
    err().print(Text(line, style="dim"))
