"""`onbelay backup`: database and files, copied together and checked."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import typer
from rich.text import Text

from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.serving import Database, StateDir, settings_of
from onbelay_server.cli.terminal import err, out, size
from onbelay_server.config import BLOBS_FOLDER, DATABASE_FILE

app = typer.Typer()


@app.command("backup")
def backup(
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to make; one made before is left alone.")
    ],
    database: Database = None,
    state_dir: StateDir = None,
) -> None:
    """Copy a SQLite database with its files, while a server works, and check the copy.

    OUT is a state folder that `onbelay serve --state-dir OUT` can start from. Tokens and keys are
    not in it. For PostgreSQL it says what to run instead.
    """
    from onbelay_server.adapters.blobs.file import blob_path
    from onbelay_server.adapters.blobs.snapshot import BlobDamaged, copy_blobs
    from onbelay_server.adapters.sql.snapshot import artifact_hashes, copy, look

    settings = settings_of(database=database, state_dir=state_dir)
    path = settings.sqlite_path
    if path is None:
        raise CommandFailed(
            "PostgreSQL is backed up with its own tools: pg_dump --format=custom "
            f"--file={target}.dump '{without_password(settings.database)}'; copy "
            f"{settings.blobs_dir} after it",
            ExitCode.USAGE,
        )
    if not path.is_file():
        raise CommandFailed(f"no database in {path}", ExitCode.USAGE)
    if target.exists():
        raise CommandFailed(f"{target} is already there", ExitCode.USAGE)
    # Under another name until it is whole: half a backup must not look like one.
    part = target.with_name(f"{target.name}.{datetime.now(UTC):%H%M%S%f}.part")
    part.mkdir(parents=True, mode=0o700)
    try:
        # The database first: every file it names was kept before it was named.
        copy(path, part / DATABASE_FILE)
        files, size_bytes = copy_blobs(settings.blobs_dir, part / BLOBS_FOLDER)
        missing = sorted(
            sha256
            for sha256 in artifact_hashes(part / DATABASE_FILE)
            if sha256 and not blob_path(part / BLOBS_FOLDER, sha256).is_file()
        )
        if missing:
            raise CommandFailed(
                f"{len(missing)} files that the database names are not there, such as {missing[0]}"
            )
        os.replace(part, target)
    except BlobDamaged as damaged:
        raise CommandFailed(str(damaged)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    copied = look(target / DATABASE_FILE)
    out().print(Text(str(target)))
    err().print(
        Text(
            f"Database {size(copied.size_bytes)}, schema {copied.revision}, checked; "
            f"{files} files, {size(size_bytes)}, each with the digest of its name."
        )
    )


def without_password(url: str) -> str:
    """A database address that can be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.hostname or ""
    place = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit(parts._replace(netloc=f"{parts.username}@{place}"))
