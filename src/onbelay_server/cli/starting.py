"""`onbelay run`: start an agent, follow it, print what it gives."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from onbelay_agent.definition import load
from onbelay_agent.errors import AgentNotLoaded
from onbelay_client import contract as pb
from onbelay_client import is_final
from onbelay_server.cli.connection import (
    SERVER_VARIABLE,
    Connection,
    command,
    server_was_named,
)
from onbelay_server.cli.embedded import EmbeddedServer, connected, private_settings
from onbelay_server.cli.following import Follower, watching
from onbelay_server.cli.outcome import (
    CommandFailed,
    ExitCode,
    code_of_run,
    waits_for_message,
    waits_for_person,
)
from onbelay_server.cli.parsing import parse_files, parse_pairs, read_input
from onbelay_server.cli.terminal import err, out, person_present, safe

app = typer.Typer()

_GONE = (
    "It waits for a person, and ends here with the server it brought: run it at a terminal, "
    "or on a server that stays (`onbelay serve --agents FILE:FUNCTION`)."
)
_NO_MESSAGES = (
    "It waits for a message, and ends here with the server it brought, to which nobody can send "
    "one: run it on a server that stays (`onbelay serve --agents FILE:FUNCTION`), and say "
    "something to it with `onbelay runs send RUN TEXT`."
)


@command(app, "run")
def run(
    connection: Connection,
    agent: Annotated[
        str, typer.Argument(help="Id or name on a server, or hello.py:hello to run it right here.")
    ],
    input_: Annotated[
        str | None, typer.Option("--input", help="JSON, @file, or @- for stdin.")
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option("--file", help="name=path of a file to give; repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="key=value; repeatable.")
    ] = None,
    title: Annotated[str, typer.Option(help="A short text for people.")] = "",
    watch: Annotated[
        bool, typer.Option("--watch/--detach", help="Follow it, or only start it.")
    ] = True,
    request_id: Annotated[str, typer.Option(help="Same id, same run.")] = "",
) -> None:
    """Start an agent and follow it; its output goes to stdout, all else to stderr.

    With --json every reply is a line: that of StartRun, then those of WatchRun.
    """
    request = _Request(
        agent=agent,
        input_json=read_input(input_) if input_ is not None else None,
        files=parse_files(file),
        labels=parse_pairs(label, "--label"),
        title=title,
        request_id=request_id,
    )
    if agent.endswith(".py"):
        raise CommandFailed(
            f"which agent of the file? Say {agent}:FUNCTION, or `onbelay dev {agent}` to serve all",
            ExitCode.USAGE,
        )
    if ":" not in agent:
        raise typer.Exit(request.run_on(connection, watch=watch))
    if server_was_named(connection.server):
        named_by = "--server"
        if os.environ.get(SERVER_VARIABLE) == connection.server:
            named_by = SERVER_VARIABLE
        raise CommandFailed(
            "code is offered by who runs the server (`onbelay serve --agents`); "
            f"without {named_by} it runs right here",
            ExitCode.USAGE,
        )
    if not watch:
        raise CommandFailed("what runs right here cannot be detached", ExitCode.USAGE)
    try:
        request.agent = load(agent).name
    except AgentNotLoaded as error:
        raise CommandFailed(str(error), ExitCode.USAGE) from error
    with (
        tempfile.TemporaryDirectory(prefix="onbelay-") as folder,
        EmbeddedServer(private_settings(Path(folder), [agent])) as serving,
        closing(connected(serving, as_json=connection.as_json)) as here,
    ):
        # Errors name the server that was asked.
        connection.server = here.server
        code = request.run_on(here, watch=True, server_ends=True)
    raise typer.Exit(code)


class _Request:
    """One run as it was asked for."""

    def __init__(
        self,
        *,
        agent: str,
        input_json: str | None,
        files: dict[str, Path],
        labels: dict[str, str],
        title: str,
        request_id: str,
    ) -> None:
        self.agent = agent
        self._input_json = input_json
        self._files = files
        self._labels = labels
        self._title = title
        self._request_id = request_id

    def run_on(self, connection: Connection, *, watch: bool, server_ends: bool = False) -> ExitCode:
        """Upload, start, follow and print; the exit code says how the run ended.

        `server_ends` with this command: then nothing can be decided later.
        """
        client = connection.client
        files = {
            name: client.artifacts.put(path, name).artifact.id for name, path in self._files.items()
        }
        started = client.runs.start(
            self.agent,
            input_json=self._input_json,
            files=files,
            labels=self._labels,
            title=self._title,
            request_id=self._request_id or None,
        )
        if connection.as_json and not watch:
            connection.print_json(started)
            return ExitCode.SUCCEEDED
        if not watch:
            out().print(Text(started.run.id))
            connection.say(f"Watch it: onbelay runs watch {started.run.id}")
            return ExitCode.SUCCEEDED
        try:
            return self._follow(connection, started, server_ends=server_ends)
        except KeyboardInterrupt:
            text = f"{started.run.id} goes on; watch it: onbelay runs watch {started.run.id}"
            if server_ends:
                text = f"{started.run.id} ended with the server it brought; nothing of it is kept."
            connection.say(text)
            raise

    def _follow(
        self, connection: Connection, started: pb.StartRunResponse, *, server_ends: bool
    ) -> ExitCode:
        """Show the run and what it gives."""
        if connection.as_json:
            return _print_replies(connection, started)
        console = err()
        follower = Follower(
            client=connection.client,
            console=console,
            may_ask=person_present(),
            leaves_when_asked=True,
            may_decide_later=not server_ends,
        )
        finished = follower.follow(started.run.id)
        if server_ends and not is_final(finished):
            console.print(Text(_NO_MESSAGES if waits_for_message(finished) else _GONE))
        else:
            print_output(finished, console)
        return code_of_run(finished)


def print_output(run: pb.Run, console: Console) -> None:
    """The output on stdout: a text as it is, all else as JSON; what went wrong on `console`."""
    if run.output_artifact_id:
        console.print(Text(f"The output is large: onbelay artifacts get {run.output_artifact_id}"))
    elif run.HasField("output_json"):
        value = json.loads(run.output_json)
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        out().print(Text(safe(text, lines=True)))
    if run.state == pb.RUN_STATE_FAILED:
        reason = pb.RunFailureReason.Name(run.error.reason).removeprefix("RUN_FAILURE_REASON_")
        console.print(Text(f"error: {safe(run.error.message)} ({reason})", style="red"))
    elif not is_final(run):
        by_message = waits_for_message(run)
        console.print(Text(f"{run.id} waits for {'a message' if by_message else 'a person'}"))
        if by_message:
            console.print(Text(f"Say something to it: onbelay runs send {run.id} TEXT"))


def _print_replies(connection: Connection, started: pb.StartRunResponse) -> ExitCode:
    connection.print_json(started)
    last = started.run
    for reply in watching(connection.client, started.run.id):
        connection.print_json(reply)
        if reply.HasField("run"):
            last = reply.run
        if waits_for_person(last):
            break
    return code_of_run(last)
