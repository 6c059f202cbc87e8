"""What the commands that list have in common: their options, and how they show a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, TypeAlias

import typer
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_server.cli.connection import Connection
from onbelay_server.cli.terminal import print_table

Limit = Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")]
PageToken = Annotated[str, typer.Option(help="next_page_token of the page before.")]


PageReply: TypeAlias = (
    "pb.ListAgentsResponse | pb.ListAgentRevisionsResponse | pb.ListBlueprintsResponse"
    "| pb.ListRunsResponse | pb.ListApprovalsResponse | pb.ListOperationsResponse"
    "| pb.ListArtifactsResponse"
)
"""A reply that holds one page of a list."""


def show_page(
    connection: Connection,
    reply: PageReply,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
) -> None:
    """The reply's own JSON, or its rows as a table and, where there is more, how to go on."""
    if connection.as_json:
        connection.print_json(reply)
        return
    print_table(columns, rows)
    if reply.next_page_token:
        connection.say(f"More: --page-token {reply.next_page_token}")
