"""`onbelay demo`: the main job once, on real data, from input to report."""

from __future__ import annotations

import importlib.resources
import shlex
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from onbelay_client import Client
from onbelay_client import contract as pb
from onbelay_server.blueprints.data_cleanup import BLUEPRINT
from onbelay_server.cli.artifacts import newest, target_in
from onbelay_server.cli.connection import Connection
from onbelay_server.cli.decision import decide, pretty
from onbelay_server.cli.embedded import EmbeddedServer, connected, private_settings
from onbelay_server.cli.following import Follower
from onbelay_server.cli.outcome import ExitCode, code_of_run
from onbelay_server.cli.starting import print_output
from onbelay_server.cli.terminal import out, person_present, print_table, size

app = typer.Typer()

EXPECTED = {str(one["name"]): str(one["description"]) for one in BLUEPRINT["output_artifacts"]}
"""The files it leaves, each with what it is."""

EVIDENCE = "evidence.json"
"""Beside them: what the decision rests on, whole."""


@app.command("demo")
def demo(
    output: Annotated[
        Path, typer.Option("--out", help="Folder for the files it makes.", file_okay=False)
    ] = Path("onbelay-demo"),
    yes: Annotated[
        bool, typer.Option("--yes", help="Approve the rules after showing them.")
    ] = False,
) -> None:
    """Find which of 3,337 real records are the same place, with your approval of the rules.

    Brings its own server. Without a terminal the rules are approved after they were shown.
    """
    output.mkdir(parents=True, exist_ok=True)
    state_dir = (output / ".state").absolute()
    approves = yes or not person_present()
    with (
        EmbeddedServer(private_settings(state_dir, [])) as serving,
        closing(connected(serving)) as connection,
    ):
        code = _run(connection, output, state_dir, approves=approves)
    raise typer.Exit(code)


def _run(connection: Connection, output: Path, state_dir: Path, *, approves: bool) -> ExitCode:
    client = connection.client
    console = out()
    example = BLUEPRINT["example"]
    ((name, path),) = example["artifacts"].items()
    source = importlib.resources.files("onbelay_server.blueprints.data_cleanup").joinpath(path)
    table = client.artifacts.put(source.read_bytes(), name, media_type="text/csv")
    started = client.runs.start(
        str(BLUEPRINT["name"]),
        example["input"],
        files={name: table.artifact.id},
        title="Demo: early-childhood sites of Chicago",
    )
    console.print(Text(f"{source.name}: {size(table.artifact.size_bytes)}, run {started.run.id}"))

    def decide_here(approval: pb.Approval) -> bool:
        _show_where_all_is(console, approval, connection.server, output, state_dir)
        if not approves:
            return approval.can_decide and decide(client, approval, console)
        console.print(Text("Approved by the demo: nobody was asked.", style="yellow"))
        client.approvals.approve(approval.id, approval.body_sha256, comment="approved by the demo")
        return True

    follower = Follower(
        client=client,
        console=console,
        on_approval=decide_here,
        leaves_when_asked=True,
        # The server ends with the demo: how to decide later is said with how to start it again.
        may_decide_later=False,
    )
    run = follower.follow(started.run.id)
    fetched = _fetch(client, run.id, output)
    missing = [name for name in EXPECTED if name not in fetched]
    code = code_of_run(run)
    if code is not ExitCode.SUCCEEDED:
        print_output(run, console)
    _print_files(console, output, fetched)
    pending = client.approvals.list(run.id, states=[pb.APPROVAL_STATE_PENDING]).approvals
    _print_commands(console, run, pending, state_dir)
    if code is ExitCode.SUCCEEDED and missing:
        console.print(Text(f"Missing: {', '.join(missing)}", style="red"))
        return ExitCode.FAILED
    return code


def _fetch(client: Client, run_id: str, output: Path) -> dict[str, pb.Artifact]:
    fetched: dict[str, pb.Artifact] = {}
    for artifact in newest(client.artifacts.each(run_id)):
        if artifact.name in EXPECTED:
            client.artifacts.download(artifact.id, target_in(output, artifact.name))
            fetched[artifact.name] = artifact
    return fetched


def _print_files(console: Console, output: Path, fetched: dict[str, pb.Artifact]) -> None:
    if not fetched:
        return
    console.print()
    print_table(
        ["FILE", "SIZE", "WHAT IT IS"],
        (
            [str(output / name), size(fetched[name].size_bytes), what]
            for name, what in EXPECTED.items()
            if name in fetched
        ),
    )


def _show_where_all_is(
    console: Console, approval: pb.Approval, server: str, output: Path, state_dir: Path
) -> None:
    """What is shown is cut, and the command it names does not know this server: both in full."""
    whole = output / EVIDENCE
    whole.write_text(pretty(approval.evidence) + "\n", encoding="utf-8")
    console.print(Text(f"All of the evidence: {whole}"))
    place = f"ONBELAY_SERVER={server.rpartition('://')[2]} {_state_of(state_dir)}"
    console.print(Text("Or from another terminal, as long as this one asks:"))
    console.print(Text(f"  {place} onbelay approvals get {approval.id}"), soft_wrap=True)


def _print_commands(
    console: Console, run: pb.Run, pending: Iterable[pb.Approval], state_dir: Path
) -> None:
    asked = [each.id for each in pending]
    here = f"{_state_of(state_dir)} onbelay"
    console.print()
    console.print(Text("To decide it:" if asked else "To look further:", style="bold"))
    lines = [
        f"onbelay serve --state-dir {shlex.quote(str(state_dir))}"
        "  # where no other server runs; the rest in another terminal",
        *(f"{here} approvals get {each}" for each in asked),
        *(f"{here} approvals approve {each}  # or reject" for each in asked),
        f"{here} runs watch {run.id}",
        f"{here} artifacts list {run.id}",
    ]
    for line in lines:
        # Whole on a line of its own, however long: it is there to be copied.
        console.print(Text(f"  {line}"), soft_wrap=True)


def _state_of(state_dir: Path) -> str:
    return f"ONBELAY_STATE_DIR={shlex.quote(str(state_dir))}"
