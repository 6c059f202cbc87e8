"""`onbelay agents …`: what can be run, and the blueprints to begin from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_client.protojson import from_json, to_json
from onbelay_server.cli.connection import Connection, command
from onbelay_server.cli.listing import Limit, PageToken, show_page
from onbelay_server.cli.outcome import ExitCode, line_of_os_error
from onbelay_server.cli.terminal import age, out, person_present, print_fields, safe

app = typer.Typer(no_args_is_help=True, help="Make, change and list agents.")

AgentName = Annotated[str, typer.Argument(help="Id or name of the agent.", metavar="AGENT")]
AgentFile = Annotated[
    str, typer.Argument(help="File with the agent as protobuf JSON; - is stdin.", metavar="FILE")
]
Etag = Annotated[str, typer.Option(help="Only if nobody changed it since; see `agents get`.")]


@command(app, "list")
def list_agents(
    connection: Connection,
    prefix: Annotated[str, typer.Option(help="Names that begin so.")] = "",
    limit: Limit = 50,
    page_token: PageToken = "",
) -> None:
    """Show agents, by name."""
    reply = connection.client.agents.list(
        name_prefix=prefix, page_size=limit, page_token=page_token
    )
    show_page(
        connection,
        reply,
        ["NAME", "AGENT", "REVISION", "FROM", "DESCRIPTION"],
        (
            [
                each.name,
                each.id,
                str(each.revision),
                pb.AgentSource.Name(each.source).removeprefix("AGENT_SOURCE_").lower(),
                (each.description.splitlines() or [""])[0],
            ]
            for each in reply.agents
        ),
    )


@command(app, "get")
def get_agent(
    connection: Connection,
    agent: AgentName,
    revision: Annotated[int | None, typer.Option(min=1, help="By default the newest.")] = None,
) -> None:
    """Show one agent."""
    reply = connection.client.agents.get(agent, revision=revision)
    if connection.as_json:
        connection.print_json(reply)
        return
    print_agent(reply.agent)


def print_agent(agent: pb.Agent) -> None:
    """An agent with everything a person asks about."""
    print_fields(
        [
            ("agent", agent.id),
            ("name", agent.name),
            ("description", agent.description),
            ("revision", str(agent.revision)),
            ("etag", agent.etag),
            ("owner", agent.owner),
            ("blueprint", agent.blueprint),
            ("harness", to_json(agent.harness)),
            ("model", agent.model),
            ("tools", ", ".join(agent.allowed_tools)),
            ("risk up to", pb.Risk.Name(agent.allowed_risk_max).removeprefix("RISK_")),
            ("approvers", ", ".join(agent.approvers)),
            ("allowed users", ", ".join(agent.allowed_users)),
            ("limits", to_json(agent.limits) if agent.HasField("limits") else ""),
            ("budget", to_json(agent.budget) if agent.HasField("budget") else ""),
            ("input schema", agent.input_schema_json),
            ("output schema", agent.output_schema_json),
        ]
    )


@command(app, "create")
def create_agent(connection: Connection, file: AgentFile) -> None:
    """Make an agent."""
    wanted = _read_agent(file)
    # Asked before it is made: afterwards its own name would be a taken one.
    found = connection.client.agents.validate(wanted)
    _print_changed(connection, connection.client.agents.create(wanted))
    if connection.as_json:
        return
    for problem in found.problems:
        connection.say(f"warning: {_problem_line(problem)}")
    if not found.startable:
        connection.say("It is kept, but cannot be started yet.")


@command(app, "update")
def update_agent(
    connection: Connection,
    file: AgentFile,
    field: Annotated[list[str], typer.Option("--field", help="Field to change; repeatable.")],
    etag: Etag = "",
) -> None:
    """Change the named fields to what the file says; its id or name says which agent."""
    reply = connection.client.agents.update(_read_agent(file), field, etag=etag)
    _print_changed(connection, reply)


@command(app, "delete")
def delete_agent(
    connection: Connection,
    agent: AgentName,
    etag: Etag = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an agent that no run uses; its ended runs stay."""
    if not yes and person_present() and not connection.as_json:
        typer.confirm(f"Delete {agent}?", abort=True, err=True)
    reply = connection.client.agents.delete(agent, etag=etag)
    if connection.as_json:
        connection.print_json(reply)
        return
    connection.say(f"Deleted {agent}")


@command(app, "revisions")
def list_revisions(
    connection: Connection, agent: AgentName, limit: Limit = 50, page_token: PageToken = ""
) -> None:
    """Show an agent's revisions, newest first."""
    reply = connection.client.agents.revisions(agent, page_size=limit, page_token=page_token)
    show_page(
        connection,
        reply,
        ["REVISION", "MADE", "BY"],
        ([str(each.revision), age(each.create_time), each.created_by] for each in reply.revisions),
    )


@command(app, "validate")
def validate_agent(connection: Connection, file: AgentFile) -> None:
    """Say what is wrong with an agent without keeping it; exit 1 when it could not be started."""
    reply = connection.client.agents.validate(_read_agent(file))
    if connection.as_json:
        connection.print_json(reply)
    else:
        for problem in reply.problems:
            severity = pb.ProblemSeverity.Name(problem.severity).removeprefix("PROBLEM_SEVERITY_")
            out().print(Text(f"{severity.lower()}  {_problem_line(problem)}"))
        out().print(Text("startable" if reply.startable else "not startable"))
    raise typer.Exit(ExitCode.SUCCEEDED if reply.startable else ExitCode.FAILED)


@command(app, "blueprints")
def list_blueprints(connection: Connection, limit: Limit = 50, page_token: PageToken = "") -> None:
    """Show the server's ready-made agents."""
    reply = connection.client.agents.blueprints(page_size=limit, page_token=page_token)
    show_page(
        connection,
        reply,
        ["BLUEPRINT", "TITLE", "FILES IT LEAVES"],
        ([each.name, each.title, ", ".join(each.expected_artifacts)] for each in reply.blueprints),
    )


@command(app, "fork")
def fork_blueprint(
    connection: Connection,
    blueprint: Annotated[str, typer.Argument(help="Name of the blueprint.")],
    name: Annotated[str, typer.Argument(help="Name of the new agent.")] = "",
) -> None:
    """Make an agent from a blueprint."""
    _print_changed(connection, connection.client.agents.fork(blueprint, name))


def _print_changed(
    connection: Connection,
    reply: pb.CreateAgentResponse | pb.UpdateAgentResponse | pb.ForkBlueprintResponse,
) -> None:
    if connection.as_json:
        connection.print_json(reply)
        return
    out().print(Text(f"{reply.agent.id}  {reply.agent.name}  revision {reply.agent.revision}"))


def _problem_line(problem: pb.AgentProblem) -> str:
    return f"{problem.field}  {safe(problem.message)}".strip()


def _read_agent(file: str) -> pb.Agent:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return from_json(text, pb.Agent())
    except OSError as error:
        raise typer.BadParameter(line_of_os_error(error), param_hint="FILE") from error
    except ValueError as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="FILE") from error
