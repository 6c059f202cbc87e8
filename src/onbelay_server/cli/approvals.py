"""`onbelay approvals …`: what runs ask people, and the answers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_client.protojson import to_datetime
from onbelay_server.cli.connection import Connection, command
from onbelay_server.cli.decision import answer_json, check_decidable, show
from onbelay_server.cli.listing import Limit, PageToken, show_page
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.terminal import age, out, person_present, print_fields

app = typer.Typer(no_args_is_help=True, help="See what runs ask people, and decide it.")

ApprovalId = Annotated[str, typer.Argument(help="Id of the approval.", metavar="APPROVAL")]
Comment = Annotated[str, typer.Option(help="Your words.")]


def state_name(approval: pb.Approval) -> str:
    """Where it stands, without the prefix."""
    return pb.ApprovalState.Name(approval.state).removeprefix("APPROVAL_STATE_")


def kind_name(approval: pb.Approval) -> str:
    """What is asked, without the prefix."""
    return pb.ApprovalKind.Name(approval.kind).removeprefix("APPROVAL_KIND_")


@command(app, "list")
def list_approvals(
    connection: Connection,
    run: Annotated[str, typer.Option(help="Of this run.")] = "",
    agent: Annotated[str, typer.Option(help="Asked by this agent.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    mine: Annotated[bool, typer.Option("--mine", help="Only what you may decide now.")] = False,
    limit: Limit = 50,
    page_token: PageToken = "",
) -> None:
    """Show approvals that wait, newest first."""
    reply = connection.client.approvals.list(
        run,
        agent=agent,
        states=() if all_ else (pb.APPROVAL_STATE_PENDING,),
        decidable_only=mine,
        page_size=limit,
        page_token=page_token,
    )
    now = to_datetime(reply.server_time)
    show_page(
        connection,
        reply,
        ["APPROVAL", "RUN", "KIND", "STATE", "ASKED", "TITLE"],
        (
            [
                each.id,
                each.run_id,
                kind_name(each),
                state_name(each),
                age(each.create_time, now),
                each.title,
            ]
            for each in reply.approvals
        ),
    )


@command(app, "get")
def get_approval(connection: Connection, approval_id: ApprovalId) -> None:
    """Show an approval with all that speaks for it."""
    reply = connection.client.approvals.get(approval_id)
    if connection.as_json:
        connection.print_json(reply)
        return
    show(reply.approval, out(), whole=True)
    approval = reply.approval
    print_fields(
        [
            ("state", state_name(approval)),
            ("run", approval.run_id),
            ("asked for", approval.requested_by),
            ("decided by", approval.decided_by),
            ("comment", approval.comment),
            ("answer", approval.answer_json),
            ("you may decide", "yes" if approval.can_decide else approval.cannot_decide_reason),
        ]
    )


@command(app, "approve")
def approve(
    connection: Connection,
    approval_id: ApprovalId,
    sha256: Annotated[
        str, typer.Option(help="Digest of what you looked at; without it you are shown it first.")
    ] = "",
    comment: Comment = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask after showing it.")] = False,
) -> None:
    """Say yes to exactly what is shown."""
    if not sha256:
        approval = connection.client.approvals.get(approval_id).approval
        if approval.state == pb.APPROVAL_STATE_PENDING:
            check_decidable(approval)
        if not connection.as_json:
            show(approval, out(), whole=True)
        if not yes:
            if connection.as_json or not person_present():
                raise CommandFailed(
                    "nobody is here to look at it: give --sha256 of what you saw, or --yes",
                    ExitCode.USAGE,
                )
            typer.confirm("Approve?", abort=True, err=True)
        sha256 = approval.body_sha256
    _report(connection, connection.client.approvals.approve(approval_id, sha256, comment=comment))


@command(app, "reject")
def reject(connection: Connection, approval_id: ApprovalId, comment: Comment = "") -> None:
    """Say no; the agent gets your words."""
    _report(connection, connection.client.approvals.reject(approval_id, comment=comment))


@command(app, "answer")
def answer(
    connection: Connection,
    approval_id: ApprovalId,
    text: Annotated[str, typer.Argument(help="JSON, or plain text.", metavar="ANSWER")],
    comment: Comment = "",
) -> None:
    """Answer a question."""
    approval = connection.client.approvals.get(approval_id).approval
    reply = connection.client.approvals.answer(
        approval_id,
        answer_json=answer_json(text, approval.answer_schema_json),
        comment=comment,
    )
    _report(connection, reply)


def _report(connection: Connection, reply: pb.DecideApprovalResponse) -> None:
    if connection.as_json:
        connection.print_json(reply)
        return
    out().print(Text(f"{reply.approval.id}  {state_name(reply.approval)}"))
    connection.say(f"Watch the run: onbelay runs watch {reply.approval.run_id}")
