"""docs/contract.md names every RPC, commands that exist and all methods of the client."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from onbelay.v1 import (
    access_service_pb2,
    agent_service_pb2,
    broker_service_pb2,
    run_service_pb2,
)
from onbelay_client.agents import Agents
from onbelay_client.approvals import Approvals
from onbelay_client.artifacts import Artifacts
from onbelay_client.client import Client
from onbelay_client.operations import Operations
from onbelay_client.runs import Runs
from onbelay_server.cli.application import app

PAGE = (Path(__file__).parents[2] / "docs" / "contract.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| (\w+) \| (yes|no) \| (.*?) ?\| (.*?) ?\|$", re.MULTILINE)
_PARTS = re.findall(r"^## (\w+Service)\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
ROWS = [(service, *row) for service, text in _PARTS for row in _ROW.findall(text)]
"""Service, RPC, whether it is built, commands, methods of the client."""
BUILT = {f"{service}/{rpc}": built == "yes" for service, rpc, built, _, _ in ROWS}
_SERVICES = (run_service_pb2, agent_service_pb2, broker_service_pb2, access_service_pb2)


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_has_every_rpc_once_in_the_order_of_the_contract() -> None:
    contract = [
        f"{service.name}/{rpc.name}"
        for module in _SERVICES
        for service in module.DESCRIPTOR.services_by_name.values()
        for rpc in service.methods
    ]
    assert [f"{service}/{rpc}" for service, rpc, *_ in ROWS] == contract


def test_nothing_uses_what_is_not_built() -> None:
    assert not [row for row in ROWS if row[2] == "no" and (row[3] or row[4])]


def test_the_commands_exist() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    commands = set()
    for name, command in root.commands.items():
        inner = getattr(command, "commands", {})
        commands |= {f"{name} {one}" for one in inner} or {name}
    assert {command for row in ROWS for command in named(row[3])} <= commands


def methods() -> Iterator[str]:
    yield "caller"
    for kind in (Runs, Agents, Approvals, Operations, Artifacts):
        for name, _ in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{kind.__name__.lower()}.{name}"


def test_every_method_of_the_client_has_its_rpc() -> None:
    assert hasattr(Client, "caller")
    assert {method for row in ROWS for method in named(row[4])} == {*methods()}
