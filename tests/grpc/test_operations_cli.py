"""The commands that steer runs and finish operations, and the story that a watch tells."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grpc.cli_server import CliServer, judged_cli_server, onbelay
from tests.server import targets


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliServer]:
    state_dir = tmp_path_factory.mktemp("cli") / "state"
    agents = targets(("brancher", "hello", "listener", "orderer", "sleeper"))
    with judged_cli_server(state_dir, agents) as running:
        yield running


def start(server: CliServer, agent: str, input_json: str = "{}") -> str:
    started = server("run", agent, "--input", input_json, "--detach")
    assert started.code == 0, started.err
    return started.out.strip()


def open_operation(server: CliServer, run_id: str) -> str:
    """The id of the operation the run has opened."""
    for _ in range(500):
        listed = server("operations", "list", "--run", run_id).out
        if listed:
            return listed.split("\t")[0]
        time.sleep(0.02)
    raise AssertionError("the run opened no operation")


def test_an_operation_is_found_shown_and_completed_once(server: CliServer) -> None:
    run_id = start(server, "orderer")
    operation_id = open_operation(server, run_id)
    assert "delivery" in server("operations", "get", operation_id).out
    complete = ("operations", "complete", operation_id)
    assert server(*complete, "--result", '"no number"').code == 2
    done = server(*complete, "--result", "7")
    assert (done.code, done.out.split()) == (0, [operation_id, "SUCCEEDED"])
    assert server(*complete, "--result", "7").code == 0
    other = server(*complete, "--error", "too late", "--reason", "LATE")
    assert other.code == 1
    assert "OPERATION_CLOSED" in other.err
    assert server("runs", "wait", run_id).code == 0
    assert server("operations", "list", "--run", run_id).out == ""
    assert "SUCCEEDED" in server("operations", "list", "--run", run_id, "--all").out
    story = server("runs", "watch", run_id).out
    assert f"operation  delivery  {operation_id}" in story
    assert f"operation done  {operation_id}  by user:" in story


def test_a_token_is_credential_enough(server: CliServer, tmp_path: Path) -> None:
    ledger = tmp_path / "sent"
    run_id = start(server, "orderer", f'{{"ledger": "{ledger}"}}')
    operation_id = open_operation(server, run_id)
    while not ledger.exists():
        time.sleep(0.01)
    token = ledger.read_text().split()[1]
    complete = ("operations", "complete", operation_id, "--result", "7")
    place = {"ONBELAY_SERVER": server.address, "ONBELAY_API_KEY": token}
    refused = onbelay("runs", "stop", run_id, **place)
    assert "SCOPE_MISSING" in refused.err
    assert onbelay(*complete, **place).code == 0
    assert server("runs", "wait", run_id).code == 0


def test_a_completion_has_one_outcome(server: CliServer) -> None:
    for options in ((), ("--result", "1", "--error", "x"), ("--result", "1", "--reason", "X")):
        assert server("operations", "complete", "op_1", *options).code == 2


def test_a_run_is_held_resumed_and_talked_to(server: CliServer) -> None:
    run_id = start(server, "listener")
    assert server("runs", "send", run_id, "hello").code == 0
    assert server("runs", "send", run_id, "--data", '{"a": 1}').code == 0
    assert server("runs", "pause", run_id).code == 0
    assert "held" in server("runs", "get", run_id).out
    resumed = server("runs", "resume", run_id)
    assert (resumed.code, "held" in resumed.out) == (0, False)
    assert server("runs", "send", run_id).code == 2
    assert server("runs", "send", run_id, "end").code == 0
    assert server("runs", "wait", run_id).code == 0
    story = server("runs", "watch", run_id).out
    assert "message  user:" in story
    assert '{"a": 1}' in story
    assert "read  " in story
    mute = start(server, "sleeper")
    assert "MESSAGES_NOT_ACCEPTED" in server("runs", "send", mute, "hello").err
    server("runs", "stop", mute)


def test_children_are_listed_by_their_parent_and_told_of(server: CliServer) -> None:
    run_id = start(server, "brancher", '{"width": 2}')
    assert server("runs", "wait", run_id).code == 0
    rows = server("runs", "list", "--parent", run_id).out.splitlines()
    assert [row.split("\t")[1] for row in rows] == ["hello", "hello"]
    assert {row.split("\t")[-1] for row in rows} == {run_id}
    story = server("runs", "watch", run_id).out
    for row in rows:
        child = row.split("\t")[0]
        assert f"child  hello  {child}" in story
        assert f"child ended  SUCCEEDED  {child}" in story
