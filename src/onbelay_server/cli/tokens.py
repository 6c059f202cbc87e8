"""`onbelay token …`: credentials that a server's operator hands out by file."""

from __future__ import annotations

import json
import secrets
import sys
from typing import Annotated

import typer
from rich.text import Text

from onbelay_server.app.credentials import token_digest
from onbelay_server.cli.outcome import CommandFailed
from onbelay_server.cli.serving import settings_of
from onbelay_server.cli.terminal import err, out

app = typer.Typer(no_args_is_help=True, help="Show, make and digest tokens of a server.")

# 256 bits: a fast digest of it is safe to keep, because it cannot be guessed.
_TOKEN_BYTES = 32


@app.command("show")
def show() -> None:
    """Print the developer token of this machine's server."""
    path = settings_of().token_path
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise CommandFailed(f"no developer token in {path}; `onbelay serve` makes one") from None
    out().print(Text(token))


@app.command("make")
def make(
    user: Annotated[str, typer.Option(help="The person or program.")],
    tenant: Annotated[str, typer.Option(help="The tenant.")] = "default",
    role: Annotated[
        list[str] | None, typer.Option("--role", help="By default developer; repeatable.")
    ] = None,
    program: Annotated[
        bool, typer.Option("--program", help="Not a person: it can never decide.")
    ] = False,
) -> None:
    """Make a token: its entry for the tokens file on stdout, the secret once on stderr."""
    token = f"obl_{secrets.token_urlsafe(_TOKEN_BYTES)}"
    lines = [
        "[[tokens]]",
        f"tenant = {json.dumps(tenant)}",
        f"user = {json.dumps(user)}",
        f"roles = {json.dumps(role or ['developer'])}",
        f"person = {json.dumps(not program)}",
        f"sha256 = {json.dumps(token_digest(token))}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    err().print(Text(f"The token, shown once: {token}"))


@app.command("hash")
def hash_token() -> None:
    """Print the SHA-256 that a tokens file holds, of a token typed or piped in."""
    if sys.stdin.isatty():
        token = typer.prompt("Token", hide_input=True, err=True)
    else:
        token = sys.stdin.readline().strip()
    if not token:
        raise CommandFailed("no token was given")
    out().print(Text(token_digest(token)))
