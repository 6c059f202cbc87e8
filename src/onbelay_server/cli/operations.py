"""`onbelay operations …`: what runs began outside, and finishing it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_client.protojson import to_datetime
from onbelay_server.cli.connection import Connection, command
from onbelay_server.cli.event_line import name_of_error
from onbelay_server.cli.listing import Limit, PageToken, show_page
from onbelay_server.cli.parsing import read_input
from onbelay_server.cli.terminal import age, out, print_fields

app = typer.Typer(no_args_is_help=True, help="See what runs began outside, and finish it.")

OperationId = Annotated[str, typer.Argument(help="Id of the operation.", metavar="OPERATION")]


def state_name(operation: pb.Operation) -> str:
    """Where it stands, without the prefix."""
    return pb.OperationState.Name(operation.state).removeprefix("OPERATION_STATE_")


@command(app, "list")
def list_operations(
    connection: Connection,
    run: Annotated[str, typer.Option(help="Of this run.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Finished ones too.")] = False,
    limit: Limit = 50,
    page_token: PageToken = "",
) -> None:
    """Show operations that are open, newest first."""
    reply = connection.client.operations.list(
        run,
        states=() if all_ else (pb.OPERATION_STATE_OPEN,),
        page_size=limit,
        page_token=page_token,
    )
    now = to_datetime(reply.server_time)
    show_page(
        connection,
        reply,
        ["OPERATION", "RUN", "STATE", "BEGUN", "NAME"],
        (
            [each.id, each.run_id, state_name(each), age(each.create_time, now), each.name]
            for each in reply.operations
        ),
    )


@command(app, "get")
def get_operation(connection: Connection, operation_id: OperationId) -> None:
    """Show one operation."""
    reply = connection.client.operations.get(operation_id)
    if connection.as_json:
        connection.print_json(reply)
        return
    operation = reply.operation
    print_fields(
        [
            ("operation", operation.id),
            ("name", operation.name),
            ("state", state_name(operation)),
            ("run", operation.run_id),
            ("step", operation.step_id),
            ("begun", _time(operation, "create_time")),
            ("expires", _time(operation, "expire_time")),
            ("finished", _time(operation, "complete_time")),
            ("finished by", operation.completed_by),
            ("schema", operation.result_schema_json),
            ("result", operation.result_json),
            ("error", Text(name_of_error(operation.error), style="red")),
        ]
    )


@command(app, "complete")
def complete_operation(
    connection: Connection,
    operation_id: OperationId,
    result: Annotated[str | None, typer.Option(help="JSON, @file or @-.")] = None,
    error: Annotated[str, typer.Option(help="It failed, in a sentence.")] = "",
    reason: Annotated[str, typer.Option(help="With --error: a short code.")] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar="ONBELAY_OPERATION_TOKEN",
            help="The operation's own, where your key may not complete operations.",
        ),
    ] = "",
    request_id: Annotated[str, typer.Option(help="Same id, same completion.")] = "",
) -> None:
    """Finish an operation with a result or an error."""
    if (result is None) == (not error) or (reason and not error):
        raise typer.BadParameter("give --result, or --error with or without --reason")
    client, once = connection.client.operations, request_id or None
    if result is None:
        reply = client.fail(operation_id, error, reason=reason, token=token, request_id=once)
    else:
        text = read_input(result, "--result")
        reply = client.complete(operation_id, result_json=text, token=token, request_id=once)
    if connection.as_json:
        connection.print_json(reply)
        return
    out().print(Text(f"{reply.operation.id}  {state_name(reply.operation)}"))


def _time(operation: pb.Operation, field: str) -> str:
    if field not in {each.name for each, _ in operation.ListFields()}:
        return ""
    return f"{to_datetime(getattr(operation, field)).astimezone():%Y-%m-%d %H:%M:%S}"
