"""`onbelay runs …`: look at runs, watch them, wait for them, end them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_client import is_final
from onbelay_client.protojson import to_datetime
from onbelay_server.cli.connection import Connection, command
from onbelay_server.cli.following import Follower, watching
from onbelay_server.cli.listing import Limit, PageToken, show_page
from onbelay_server.cli.outcome import NEEDS_PERSON, ExitCode, code_of_run
from onbelay_server.cli.parsing import parse_filter, parse_pairs, read_input
from onbelay_server.cli.run_view import pause_text
from onbelay_server.cli.terminal import (
    age,
    err,
    out,
    person_present,
    print_fields,
    state_name,
    state_text,
)

app = typer.Typer()
"""`steering` joins these with its own into the group `runs`."""

RunId = Annotated[str, typer.Argument(help="Id of the run.", metavar="RUN")]
Agents = Annotated[list[str] | None, typer.Option("--agent", help="Id or name; repeatable.")]
States = Annotated[
    list[str] | None, typer.Option("--state", help="For example running; repeatable.")
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="key=value; repeatable.")]


class Until(StrEnum):
    """What `wait` waits for."""

    FINISHED = "finished"
    ATTENTION = "attention"


@command(app, "list")
def list_runs(
    connection: Connection,
    agent: Agents = None,
    state: States = None,
    label: Labels = None,
    parent: Annotated[str, typer.Option(help="Only what this run started.")] = "",
    roots: Annotated[bool, typer.Option("--roots", help="No child runs.")] = False,
    limit: Limit = 50,
    page_token: PageToken = "",
    full: Annotated[bool, typer.Option("--full", help="With input and output.")] = False,
) -> None:
    """Show runs, newest first."""
    wanted = parse_filter(agent, state, label, parent=parent, roots=roots)
    reply = connection.client.runs.list(
        wanted,
        page_size=limit,
        page_token=page_token,
        full=full,
    )
    show_page(
        connection,
        reply,
        ["RUN", "AGENT", "STATE", "STARTED", "TITLE", "PARENT"],
        (
            [
                run.id,
                run.agent_name,
                state_text(run.state),
                age(run.create_time),
                run.title,
                run.parent_run_id,
            ]
            for run in reply.runs
        ),
    )


@command(app, "get")
def get_run(connection: Connection, run_id: RunId) -> None:
    """Show one run."""
    reply = connection.client.runs.get(run_id)
    if connection.as_json:
        connection.print_json(reply)
        return
    print_run(reply.run)


def print_run(run: pb.Run) -> None:
    """A run with everything a person asks about."""
    print_fields(
        [
            ("run", run.id),
            ("agent", f"{run.agent_name} revision {run.agent_revision}"),
            ("state", state_text(run.state)),
            ("title", run.title),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(run.labels.items()))),
            ("started by", run.started_by),
            ("created", f"{to_datetime(run.create_time).astimezone():%Y-%m-%d %H:%M:%S}"),
            (
                "finished",
                f"{to_datetime(run.finish_time).astimezone():%Y-%m-%d %H:%M:%S}"
                if run.HasField("finish_time")
                else "",
            ),
            ("attempt", str(run.attempt)),
            ("events", str(run.last_sequence)),
            ("parent", run.parent_run_id),
            ("rerun of", run.rerun_of),
            ("waits for", ", ".join(wait_text(wait) for wait in run.waits)),
            ("pause", pause_text(run.pause) if run.HasField("pause") else ""),
            ("stop", f"{run.stop.requested_by}: {run.stop.reason}" if run.HasField("stop") else ""),
            ("winding down", ", ".join(run.stop.waiting_for)),
            ("not stopped", ", ".join(run.stop.not_stopped)),
            ("input", run.input_json),
            ("output", run.output_json or run.output_artifact_id),
            (
                "error",
                Text(
                    f"{pb.RunFailureReason.Name(run.error.reason).removeprefix('RUN_FAILURE_REASON_')}"
                    f": {run.error.message}",
                    style="red",
                )
                if run.HasField("error")
                else "",
            ),
        ]
    )


def wait_text(wait: pb.Wait) -> str:
    """What a run waits for, by the id that ends it where there is one."""
    match wait.WhichOneof("subject"):
        case "approval_id":
            return wait.approval_id
        case "operation_id":
            return wait.operation_id
        case "child_run_id":
            return wait.child_run_id
        case "wake_time":
            return f"{to_datetime(wait.wake_time).astimezone():%Y-%m-%d %H:%M:%S}"
        case "turn_run_id":
            return wait.turn_run_id
        case "message":
            return "a message"
    return wait.step_id


@command(app, "watch")
def watch_run(
    connection: Connection,
    run_id: RunId,
    after: Annotated[int, typer.Option(min=0, help="Only events after this sequence.")] = 0,
) -> None:
    """Show a run live until it ended; approvals are asked for when you may decide them."""
    if connection.as_json:
        last = pb.Run()
        for reply in watching(connection.client, run_id, after):
            connection.print_json(reply)
            if reply.HasField("run"):
                last = reply.run
        raise typer.Exit(code_of_run(last))
    follower = Follower(client=connection.client, console=out(), may_ask=person_present())
    run = follower.follow(run_id, after)
    raise typer.Exit(code_of_run(run))


@command(app, "wait")
def wait_run(
    connection: Connection,
    run_id: RunId,
    until: Annotated[Until, typer.Option(help="attention: ended, or needs a person.")] = (
        Until.FINISHED
    ),
    after: Annotated[int, typer.Option(min=0, help="Only what was asked after this.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds; by default for ever.")
    ] = None,
) -> None:
    """Wait for a run without showing it; the exit code says how it stands."""
    reply = connection.client.runs.wait(
        run_id,
        until="attention" if until is Until.ATTENTION else "finished",
        after=after,
        timeout_seconds=timeout,
    )
    if connection.as_json:
        connection.print_json(reply)
    else:
        out().print(Text(state_name(reply.run.state)))
    if reply.timed_out:
        raise typer.Exit(ExitCode.TIMED_OUT)
    needs_person = reply.run.state in NEEDS_PERSON or (
        until is Until.ATTENTION and not is_final(reply.run)
    )
    raise typer.Exit(ExitCode.NEEDS_PERSON if needs_person else code_of_run(reply.run))


@command(app, "stop")
def stop_run(
    connection: Connection,
    run_id: Annotated[str, typer.Argument(metavar="[RUN]", help="Id of the run.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    agent: Agents = None,
    state: States = None,
    label: Labels = None,
) -> None:
    """Stop a run, or all that --agent, --state and --label match, with what they started."""
    wanted = bool(agent or state or label)
    if bool(run_id) == wanted:
        raise typer.BadParameter("give a run, or conditions, and not both")
    if wanted:
        runs_filter = parse_filter(agent, state, label)
        stopped_any = False
        while True:
            stopped = connection.client.runs.stop_all(runs_filter, reason)
            stopped_any = stopped_any or bool(stopped.stopped_run_ids)
            if connection.as_json:
                connection.print_json(stopped)
            else:
                for each in stopped.stopped_run_ids:
                    out().print(Text(each))
            if not stopped.more:
                if not stopped_any:
                    connection.say("nothing to stop")
                return
    reply = connection.client.runs.stop(run_id, reason)
    if connection.as_json:
        connection.print_json(reply)
        return
    out().print(Text(f"{reply.run.id}  {state_name(reply.run.state)}"))
    for item in reply.run.stop.waiting_for:
        connection.say(f"waits for {item}")


@command(app, "rerun")
def rerun(
    connection: Connection,
    run_id: RunId,
    input_: Annotated[
        str | None, typer.Option("--input", help="JSON or @file, in place of the old input.")
    ] = None,
    label: Labels = None,
    request_id: Annotated[str, typer.Option(help="Same id, same run.")] = "",
) -> None:
    """Start a run again with the same agent, revision, input and files."""
    reply = connection.client.runs.start(
        rerun_of=run_id,
        input_json=read_input(input_) if input_ is not None else None,
        labels=parse_pairs(label, "label"),
        request_id=request_id or None,
    )
    if connection.as_json:
        connection.print_json(reply)
        return
    out().print(Text(reply.run.id))
    connection.say(f"Watch it: onbelay runs watch {reply.run.id}")


@command(app, "update")
def update_run(
    connection: Connection,
    run_id: RunId,
    title: Annotated[str | None, typer.Option(help="A short text for people.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="key=value; replaces all labels.")
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Remove all labels.")] = False,
) -> None:
    """Change title or labels."""
    labels = {} if no_labels else parse_pairs(label, "label") if label else None
    if title is None and labels is None:
        raise typer.BadParameter("give --title, --label or --no-labels")
    reply = connection.client.runs.update(run_id, title=title, labels=labels)
    if connection.as_json:
        connection.print_json(reply)
        return
    print_run(reply.run)


@command(app, "delete")
def delete_run(
    connection: Connection,
    run_id: RunId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an ended run with its children, events and files."""
    if not yes and person_present() and not connection.as_json:
        typer.confirm(f"Delete {run_id} and everything it left?", abort=True, err=True)
    reply = connection.client.runs.delete(run_id)
    if connection.as_json:
        connection.print_json(reply)
        return
    err().print(Text(f"Deleted {reply.deleted_runs} run{'' if reply.deleted_runs == 1 else 's'}"))
