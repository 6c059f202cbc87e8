"""`onbelay runs pause|resume|send`: hold a run, let it go on, talk to it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_server.cli import runs
from onbelay_server.cli.connection import Connection, command
from onbelay_server.cli.parsing import read_input
from onbelay_server.cli.run_view import pause_text
from onbelay_server.cli.runs import RunId
from onbelay_server.cli.terminal import out, safe, state_name

_steering = typer.Typer()
app = typer.Typer(no_args_is_help=True, help="Look at runs, watch them, wait for them, end them.")
"""The group `runs` as people see it: the commands of `cli.runs`, then these."""
app.add_typer(runs.app)
app.add_typer(_steering)


@command(_steering, "pause")
def pause_run(connection: Connection, run_id: RunId) -> None:
    """Hold a run and what it started at their next boundary."""
    reply = connection.client.runs.pause(run_id)
    if connection.as_json:
        connection.print_json(reply)
        return
    _report(reply.run)
    connection.say(f"Let it go on: onbelay runs resume {run_id}")


@command(_steering, "resume")
def resume_run(connection: Connection, run_id: RunId) -> None:
    """Let a held run and what it started go on."""
    reply = connection.client.runs.resume(run_id)
    if connection.as_json:
        connection.print_json(reply)
        return
    _report(reply.run)


@command(_steering, "send")
def send_message(
    connection: Connection,
    run_id: RunId,
    text: Annotated[str, typer.Argument(help="What to say.", metavar="[TEXT]")] = "",
    data: Annotated[str, typer.Option(help="JSON, @file or @-, in place of a text.")] = "",
    request_id: Annotated[str, typer.Option(help="Same id, same message.")] = "",
) -> None:
    """Say something to a run whose agent takes messages."""
    if bool(text) == bool(data):
        raise typer.BadParameter("give a text or --data, and not both")
    reply = connection.client.runs.send(
        run_id,
        text,
        data_json=read_input(data, "--data") if data else None,
        request_id=request_id or None,
    )
    if connection.as_json:
        connection.print_json(reply)
        return
    out().print(Text(reply.message_id))


def _report(run: pb.Run) -> None:
    held = f"  {safe(pause_text(run.pause), lines=True)}" if run.HasField("pause") else ""
    out().print(Text(f"{run.id}  {state_name(run.state)}{held}"))
