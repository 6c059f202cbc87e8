"""Showing an approval to a person and taking the decision."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markdown import Markdown
from rich.panel import Panel
from rich.prompt import Prompt
from rich.text import Text

from onbelay_client import Client, FailedPrecondition, InvalidArgument
from onbelay_client import contract as pb
from onbelay_client.protojson import to_datetime
from onbelay_server.cli.outcome import CommandFailed, ExitCode, line_of_error
from onbelay_server.cli.terminal import safe

SHOWN_EVIDENCE_LINES = 20


def show(approval: pb.Approval, console: Console, *, whole: bool = False) -> None:
    """What is asked, what speaks for it and the digest a yes is bound to.

    The body is the agent's: its links are shown as addresses, its escapes as text. Evidence is cut
    unless `whole`, and says so.
    """
    parts: list[RenderableType] = []
    if approval.summary:
        parts.append(Markdown(safe(approval.summary, lines=True), hyperlinks=False))
    for call in approval.calls:
        risk = pb.Risk.Name(call.risk).removeprefix("RISK_")
        parts.append(Text(f"\n{safe(call.tool)} {safe(call.tool_version)}  risk {risk}", "bold"))
        parts.append(Text(safe(pretty(call.arguments_json), lines=True)))
    if approval.evidence:
        parts.append(Text("\nEvidence", style="bold"))
        parts.append(Text(_cut(safe(pretty(approval.evidence), lines=True), approval.id, whole)))
    for artifact_id in approval.evidence_artifact_ids:
        parts.append(Text(f"evidence file {artifact_id}", style="dim"))
    if approval.answer_schema_json:
        parts.append(Text("\nThe answer must fit", style="bold"))
        parts.append(Text(safe(pretty(approval.answer_schema_json), lines=True)))
    parts.append(Text(f"\nsha256 {approval.body_sha256}", style="dim"))
    if approval.HasField("expire_time"):
        until = to_datetime(approval.expire_time).astimezone()
        parts.append(Text(f"expires {until:%Y-%m-%d %H:%M}", style="dim"))
    console.print(
        Panel(
            Group(*parts),
            title=Text(safe(approval.title), style="bold"),
            subtitle=Text(approval.id, style="dim"),
            border_style="yellow",
            padding=(1, 2),
        ),
        # Whatever it goes to: a panel that does not wrap is cut, and the rest would be approved
        # unseen.
        soft_wrap=False,
    )


def decide(client: Client, approval: pb.Approval, console: Console) -> bool:
    """Ask the person for a decision and send it; False when they leave it for later."""
    try:
        if approval.kind == pb.APPROVAL_KIND_QUESTION:
            return _answer(client, approval, console)
        choice = Prompt.ask(
            "Approve?", choices=["yes", "no", "later"], default="later", console=console
        )
        if choice == "later":
            return False
        if choice == "yes":
            comment = Prompt.ask("Comment", default="", show_default=False, console=console)
            client.approvals.approve(approval.id, approval.body_sha256, comment=comment)
        else:
            comment = Prompt.ask("Why not", default="", show_default=False, console=console)
            client.approvals.reject(approval.id, comment=comment)
    except FailedPrecondition as error:
        if error.reason != "ALREADY_DECIDED":
            raise
        console.print(Text(f"Somebody else was faster: {safe(error.message)}", style="yellow"))
    return True


def answer_json(text: str, schema_json: str) -> str:
    """What a person typed as JSON text: as it is where it is JSON, else as a string.

    A schema that asks for a string gets one, whatever it looks like.
    """
    schema = json.loads(schema_json) if schema_json else {}
    if not (isinstance(schema, dict) and schema.get("type") == "string"):
        try:
            json.loads(text)
        except ValueError:
            pass
        else:
            return text
    return json.dumps(text, ensure_ascii=False)


def how_to_decide(approval: pb.Approval) -> str:
    """The commands that decide it."""
    look = f"onbelay approvals get {approval.id}"
    if approval.kind == pb.APPROVAL_KIND_QUESTION:
        return f"{look}; onbelay approvals answer {approval.id} ANSWER"
    return f"{look}; onbelay approvals approve {approval.id} (or reject)"


def pretty(text: str, width: int = 96) -> str:
    """JSON text laid out for reading; other text as it is."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else _laid_out(value, width)


def _laid_out(value: Any, width: int, indent: int = 0) -> str:
    """A value on one line where it fits, else broken at its outermost level."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= width or not isinstance(value, dict | list):
        return line
    inner = indent + 2
    if isinstance(value, dict):
        parts = []
        for key, each in value.items():
            name = f"{json.dumps(key, ensure_ascii=False)}: "
            parts.append(name + _laid_out(each, width - len(name), inner))
        opening, closing = "{", "}"
    else:
        parts = [_laid_out(each, width, inner) for each in value]
        opening, closing = "[", "]"
    body = ",\n".join(" " * inner + part for part in parts)
    return f"{opening}\n{body}\n{' ' * indent}{closing}"


def check_decidable(approval: pb.Approval) -> None:
    """CommandFailed when the caller may not decide it now, with the reason."""
    if not approval.can_decide:
        why = approval.cannot_decide_reason or "you may not decide it"
        raise CommandFailed(f"{approval.id}: {safe(why)}", ExitCode.FAILED)


def _answer(client: Client, approval: pb.Approval, console: Console) -> bool:
    while True:
        text = Prompt.ask("Answer (empty: later)", default="", show_default=False, console=console)
        if not text:
            return False
        typed = answer_json(text, approval.answer_schema_json)
        try:
            client.approvals.answer(approval.id, answer_json=typed)
        except InvalidArgument as error:
            if error.reason != "ANSWER_MISMATCH":
                raise
            console.print(Text(safe(line_of_error(error)), style="red"))
        else:
            return True


def _cut(text: str, approval_id: str, whole: bool) -> str:
    lines = text.splitlines()
    if whole or len(lines) <= SHOWN_EVIDENCE_LINES:
        return text
    rest = len(lines) - SHOWN_EVIDENCE_LINES
    kept = "\n".join(lines[:SHOWN_EVIDENCE_LINES])
    return f"{kept}\n… {rest} more lines: onbelay approvals get {approval_id}"
