"""`onbelay artifacts …`: files that runs are given and leave."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_server.cli.connection import Connection, command
from onbelay_server.cli.listing import Limit, PageToken, show_page
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.terminal import out, safe, size

app = typer.Typer(no_args_is_help=True, help="Fetch the files of a run, or upload some.")


@command(app, "list")
def list_artifacts(
    connection: Connection,
    run_id: Annotated[str, typer.Argument(help="Id of the run.", metavar="RUN")],
    limit: Limit = 50,
    page_token: PageToken = "",
) -> None:
    """Show the files of a run, in the order in which they were saved."""
    reply = connection.client.artifacts.list(run_id, page_size=limit, page_token=page_token)
    show_page(
        connection,
        reply,
        ["ARTIFACT", "NAME", "SIZE", "TYPE", "SHA-256"],
        (
            [each.id, each.name, size(each.size_bytes), each.media_type, each.sha256[:16]]
            for each in reply.artifacts
        ),
    )


@command(app, "get")
def get_artifact(
    connection: Connection,
    what: Annotated[
        str,
        typer.Argument(
            help="Id of an artifact, or of a run with --name or --all.", metavar="ARTIFACT|RUN"
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the file of that run.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="All files of that run.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File, or folder with --all; - is stdout.")
    ] = None,
) -> None:
    """Download a file, or all files of a run, checked by SHA-256.

    With --json the description of each file is printed once it is there.
    """
    if all_:
        folder = output or Path.cwd()
        # Listed before the folder is made: a run that is not there must leave none behind.
        found = newest(connection.client.artifacts.each(what))
        folder.mkdir(parents=True, exist_ok=True)
        for artifact in found:
            _fetch(connection, artifact, target_in(folder, artifact.name))
        return
    if name:
        named = [each for each in connection.client.artifacts.each(what) if each.name == name]
        if not named:
            raise CommandFailed(f"run {what} has no file named {name}")
        _fetch(connection, named[-1], output or target_in(Path.cwd(), name))
        return
    if what.startswith("run_"):
        raise typer.BadParameter("of a run: give --name NAME for one file, or --all")
    if str(output) == "-" or (output is None and not sys.stdout.isatty()):
        sys.stdout.buffer.write(connection.client.artifacts.read(what))
        sys.stdout.flush()
        return
    _fetch(connection, pb.Artifact(id=what, name=what), output or Path(what))


@command(app, "put")
def put_artifact(
    connection: Connection,
    path: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File to upload.")],
    name: Annotated[str, typer.Option(help="The name it is read by; by default the file's.")] = "",
    run: Annotated[str, typer.Option(help="The run it is for; by default one started later.")] = "",
    media_type: Annotated[str, typer.Option(help="By default guessed from the name.")] = "",
) -> None:
    """Upload a file; a run started within 24 hours can take it."""
    reply = connection.client.artifacts.put(path, name, run_id=run, media_type=media_type)
    if connection.as_json:
        connection.print_json(reply)
        return
    out().print(Text(reply.artifact.id))


def newest(artifacts: Iterable[pb.Artifact]) -> list[pb.Artifact]:
    """One artifact a name: the last that was saved under it."""
    by_name: dict[str, pb.Artifact] = {}
    for artifact in artifacts:
        by_name[artifact.name] = artifact
    return list(by_name.values())


def target_in(folder: Path, name: str) -> Path:
    """Where a file of that name goes below `folder`; CommandFailed for a name that leads out."""
    target = folder / name
    if folder.resolve() not in target.resolve().parents:
        raise CommandFailed(f"the name {safe(name)!r} leads out of {folder}")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _fetch(connection: Connection, artifact: pb.Artifact, target: Path) -> None:
    if str(target) == "-":
        sys.stdout.buffer.write(connection.client.artifacts.read(artifact.id))
        sys.stdout.flush()
        return
    if not target.parent.is_dir():
        raise CommandFailed(f"cannot write {target}: no such folder", ExitCode.USAGE)
    fetched = connection.client.artifacts.download(artifact.id, target)
    if connection.as_json:
        connection.print_json(fetched)
        return
    connection.say(f"{target}  {size(fetched.size_bytes)}")
