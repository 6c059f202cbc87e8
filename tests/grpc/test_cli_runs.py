"""Runs from the command line, against a real server: text, JSON and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grpc.cli_server import AGENTS, CliServer, cli_server, onbelay


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliServer]:
    with cli_server(tmp_path_factory.mktemp("cli")) as running:
        yield running


def started(server: CliServer, agent: str, *more: str) -> str:
    ended = server("run", agent, "--detach", *more)
    assert ended.code == 0, ended
    return ended.out.strip()


def test_run_prints_the_output_alone_on_stdout(server: CliServer) -> None:
    ended = server("run", "greeter", "--input", '{"name": "Ada"}')
    assert (ended.code, ended.out) == (0, "Hello Ada\n")
    assert "Looking at Ada" in ended.err
    assert "1 of 2  half" in ended.err


def test_run_takes_its_input_from_stdin_or_a_file(server: CliServer, tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"name": "Grace"}')
    assert server("run", "greeter", "--input", f"@{file}").out == "Hello Grace\n"
    piped = server("run", "greeter", "--input", "@-", stdin='{"name": "Alan"}')
    assert piped.out == "Hello Alan\n"


def test_a_failed_run_ends_with_1_and_says_why(server: CliServer) -> None:
    ended = server("run", "breaker")
    assert (ended.code, ended.out) == (1, "")
    assert "the disk is full" in ended.err
    assert "AGENT_ERROR" in ended.err


def test_the_same_request_id_is_the_same_run(server: CliServer) -> None:
    options = ("--input", '{"name": "x"}', "--request-id", "once")
    first, second = (started(server, "greeter", *options) for _ in range(2))
    assert first == second


def test_json_is_the_replies_and_nothing_else(server: CliServer) -> None:
    ended = server("run", "greeter", "--input", '{"name": "Ada"}', "--json")
    replies = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.err == ""
    run_id = replies[0]["run"]["id"]
    assert replies[-1]["end"] == {"reason": "STREAM_END_REASON_FINISHED"}
    sequences = [each["sequence"] for reply in replies[1:] for each in reply.get("events", [])]
    assert sequences == list(range(1, len(sequences) + 1))
    got = json.loads(server("runs", "get", run_id, "--json").out)
    assert got["run"]["outputJson"] == '"Hello Ada"'
    assert got["run"]["state"] == "RUN_STATE_SUCCEEDED"


def test_watch_shows_a_finished_run_from_any_position(server: CliServer) -> None:
    run_id = started(server, "greeter", "--input", '{"name": "Ada"}')
    whole = server("runs", "watch", run_id)
    assert whole.code == 0
    assert "started  greeter" in whole.out
    rest = server("runs", "watch", run_id, "--after", "1")
    assert "started  greeter" not in rest.out
    assert "finished  SUCCEEDED" in rest.out


def test_list_filters(server: CliServer) -> None:
    run_id = started(server, "greeter", "--input", '{"name": "x"}', "--label", "team=blue")
    listed = server("runs", "list", "--label", "team=blue", "--agent", "greeter")
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == [run_id]
    assert server("runs", "list", "--label", "team=red").out == ""


def test_update_and_delete(server: CliServer) -> None:
    run_id = started(server, "greeter", "--input", '{"name": "x"}')
    server("runs", "wait", run_id)
    updated = server("runs", "update", run_id, "--title", "Tidy", "--label", "a=b")
    assert "Tidy" in updated.out
    assert "a=b" in updated.out
    assert server("runs", "update", run_id).code == 2
    deleted = server("runs", "delete", run_id, "--yes")
    assert (deleted.code, deleted.err) == (0, "Deleted 1 run\n")
    gone = server("runs", "get", run_id)
    assert gone.code == 1
    assert "NOT_FOUND" in gone.err
    assert run_id in gone.err
    assert len(gone.err.splitlines()) == 1


def test_stop_by_id_and_by_filter(server: CliServer) -> None:
    run_id = started(server, "sleeper", "--label", "kind=one")
    assert server("runs", "wait", run_id, "--timeout", "0").code == 6
    assert server("runs", "stop", run_id, "--reason", "enough").code == 0
    assert server("runs", "wait", run_id, "--timeout", "20").code == 4
    others = {started(server, "sleeper", "--label", "kind=many") for _ in range(2)}
    stopped = server("runs", "stop", "--label", "kind=many")
    assert set(stopped.out.split()) == others
    for other in others:
        assert server("runs", "wait", other, "--timeout", "20").code == 4
    again = server("runs", "stop", "--label", "kind=many")
    assert (again.code, again.out, again.err) == (0, "", "nothing to stop\n")
    assert server("runs", "stop").code == 2
    assert server("runs", "stop", run_id, "--agent", "sleeper").code == 2


def test_rerun_repeats_the_input(server: CliServer) -> None:
    run_id = started(server, "greeter", "--input", '{"name": "Ada"}')
    again = server("runs", "rerun", run_id).out.strip()
    assert again != run_id
    assert server("runs", "wait", again).code == 0
    assert "Hello Ada" in server("runs", "get", again).out
    other = server("runs", "rerun", run_id, "--input", '{"name": "Bob"}').out.strip()
    server("runs", "wait", other)
    assert "Hello Bob" in server("runs", "get", other).out


def test_a_run_that_asks_ends_with_3_and_says_how_to_decide(server: CliServer) -> None:
    ended = server("run", "asker")
    assert ended.code == 3
    assert "onbelay approvals approve apr_" in ended.err


def test_a_run_that_asks_beside_its_own_server_names_no_command_that_cannot_work(
    tmp_path: Path,
) -> None:
    file = tmp_path / "asking_agents.py"
    file.write_text(AGENTS, encoding="utf-8")
    ended = onbelay("run", f"{file}:asker")
    assert ended.code == 3
    assert "onbelay approvals" not in ended.err
    assert "onbelay serve" in ended.err


def test_approve_needs_eyes_or_a_digest(server: CliServer) -> None:
    run_id = started(server, "asker")
    assert server("runs", "wait", run_id, "--until", "attention").code == 3
    listed = json.loads(server("approvals", "list", "--run", run_id, "--json").out)
    approval_id = listed["approvals"][0]["id"]
    unseen = server("approvals", "approve", approval_id)
    assert unseen.code == 2
    assert "It is final" in unseen.out
    wrong = server("approvals", "approve", approval_id, "--sha256", "0" * 64)
    assert wrong.code == 1
    assert "HASH_MISMATCH" in wrong.err
    got = json.loads(server("approvals", "get", approval_id, "--json").out)
    sha256 = got["approval"]["bodySha256"]
    decided = server("approvals", "approve", approval_id, "--sha256", sha256, "--comment", "fine")
    assert decided.code == 0, decided
    assert server("runs", "wait", run_id, "--timeout", "20").code == 0
    assert "approved by user:developer" in server("runs", "get", run_id).out
    shown = server("approvals", "get", approval_id)
    assert '{"pages": 2}' in shown.out
    assert "fine" in shown.out


def test_reject_and_answer(server: CliServer) -> None:
    run_id = started(server, "asker")
    server("runs", "wait", run_id, "--until", "attention")
    (line,) = server("approvals", "list", "--run", run_id, "--mine").out.splitlines()
    assert "Send the letter?" in line
    assert server("approvals", "reject", line.split("\t")[0], "--comment", "not yet").code == 0
    assert server("runs", "wait", run_id, "--timeout", "20").code == 0
    assert "rejected by user:developer: not yet" in server("runs", "get", run_id).out

    run_id = started(server, "questioner")
    server("runs", "wait", run_id, "--until", "attention")
    approval_id = server("approvals", "list", "--run", run_id).out.split("\t")[0]
    mismatch = server("approvals", "answer", approval_id, "many")
    assert mismatch.code == 2
    assert "ANSWER_MISMATCH" in mismatch.err
    assert server("approvals", "answer", approval_id, "41").code == 0
    assert server("runs", "wait", run_id, "--timeout", "20").code == 0
    assert "42" in server("runs", "get", run_id).out


def test_files_in_and_out(server: CliServer, tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    given.write_text("some text")
    run_id = started(server, "copier", "--file", f"in.txt={given}")
    assert server("runs", "wait", run_id, "--timeout", "20").code == 0
    rows = [line.split("\t") for line in server("artifacts", "list", run_id).out.splitlines()]
    assert {row[1] for row in rows} == {"in.txt", "folder/out.txt"}
    (artifact_id,) = (row[0] for row in rows if row[1] == "folder/out.txt")
    assert server("artifacts", "get", artifact_id).out == "SOME TEXT"
    target = tmp_path / "copy"
    assert server("artifacts", "get", run_id, "--all", "-o", str(target)).code == 0
    assert (target / "folder" / "out.txt").read_text() == "SOME TEXT"
    single = tmp_path / "one.txt"
    server("artifacts", "get", run_id, "--name", "folder/out.txt", "-o", str(single))
    assert single.read_text() == "SOME TEXT"
    which = server("artifacts", "get", run_id)
    assert which.code == 2
    assert "--all" in which.err
    nowhere = tmp_path / "nowhere"
    gone = server("artifacts", "get", "run_none", "--all", "-o", str(nowhere))
    assert gone.code != 0
    assert "run_none" in gone.err
    assert not nowhere.exists()
    ended = server("artifacts", "get", artifact_id, "-o", str(nowhere / "x"))
    assert (ended.code, "no such folder" in ended.err) == (2, True)
    uploaded = server("artifacts", "put", str(given), "--json")
    assert json.loads(uploaded.out)["artifact"]["name"] == "given.txt"


def test_usage_errors_end_with_2_before_any_call() -> None:
    for arguments in (
        ("runs", "list", "--state", "nope"),
        ("run", "greeter", "--input", "{"),
        ("run", "greeter", "--file", "no-such-file"),
        ("run", "hello.py"),
        ("runs", "get"),
        ("no-such-command",),
    ):
        ended = onbelay(*arguments, ONBELAY_API_KEY="x", ONBELAY_SERVER="127.0.0.1:1")
        assert ended.code == 2, arguments
        assert ended.out == ""


def test_a_server_that_is_not_there_ends_with_5_in_one_line() -> None:
    ended = onbelay("runs", "list", "--server", "127.0.0.1:1", "--api-key", "x")
    assert ended.code == 5
    assert "127.0.0.1:1 " in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_bad_credential_is_said(server: CliServer) -> None:
    ended = onbelay("runs", "list", "--server", server.address, "--api-key", "wrong")
    assert ended.code == 1
    assert "CREDENTIAL_INVALID" in ended.err


def test_the_developer_token_never_goes_to_another_machine(server: CliServer) -> None:
    ended = onbelay(
        "runs", "list", "--server", "example.org:443", ONBELAY_STATE_DIR=str(server.state_dir)
    )
    assert ended.code == 2
    assert "no credential for example.org:443" in ended.err


def test_the_developer_token_is_found(server: CliServer) -> None:
    found = {"ONBELAY_STATE_DIR": str(server.state_dir), "ONBELAY_SERVER": server.address}
    assert onbelay("agents", "list", **found).code == 0
    assert onbelay("token", "show", **found).out.strip() == server.token
