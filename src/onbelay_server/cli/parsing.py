"""What people type, as values of the contract."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer

from onbelay_client import contract as pb
from onbelay_server.cli.outcome import line_of_os_error


def parse_pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """`key=value` texts as a mapping; BadParameter for one without `=`."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not of the form key=value", param_hint=option)
        pairs[key] = value
    return pairs


def parse_filter(
    agents: list[str] | None,
    states: list[str] | None,
    labels: list[str] | None,
    *,
    parent: str = "",
    roots: bool = False,
) -> pb.RunFilter:
    """Conditions on runs; states in any case, with `-` or `_`."""
    found = pb.RunFilter(
        agents=agents or (),
        labels=parse_pairs(labels, "--label"),
        parent_run_id=parent,
        roots_only=roots,
    )
    known = [name for name, number in pb.RunState.items() if number]
    for text in states or ():
        name = "RUN_STATE_" + text.upper().replace("-", "_")
        if name not in known:
            names = ", ".join(each.removeprefix("RUN_STATE_").lower() for each in known)
            raise typer.BadParameter(f"{text!r} is none of {names}", param_hint="--state")
        found.states.append(pb.RunState.Value(name))
    return found


def read_input(text: str, option: str = "--input") -> str:
    """JSON text as given, or from `@file`, or from stdin with `@-`; BadParameter when it is none.

    The text goes on as it is: large numbers and the order of keys stay what was written.
    """
    if text.startswith("@"):
        try:
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(line_of_os_error(error), param_hint=option) from error
        except UnicodeDecodeError as error:
            raise typer.BadParameter(f"{text[1:]}: {error}", param_hint=option) from error
    try:
        json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=option) from error
    return text


def parse_files(texts: list[str] | None) -> dict[str, Path]:
    """`name=path` or `path` as name → path; BadParameter when a file is not there."""
    files: dict[str, Path] = {}
    for text in texts or ():
        name, equals, path = text.partition("=")
        found = Path(path if equals else text)
        if not found.is_file():
            raise typer.BadParameter(f"no such file: {found}", param_hint="--file")
        files[name if equals else found.name] = found
    return files
