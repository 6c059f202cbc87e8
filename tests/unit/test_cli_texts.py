"""What the command line reads and writes, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from typer.testing import CliRunner

from onbelay_client import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OnbelayError,
    Unavailable,
)
from onbelay_client import contract as pb
from onbelay_server.app.credentials import token_digest
from onbelay_server.cli.application import app
from onbelay_server.cli.decision import answer_json, pretty, show
from onbelay_server.cli.developing import agents_in
from onbelay_server.cli.event_line import event_line
from onbelay_server.cli.outcome import (
    ExitCode,
    code_of_error,
    code_of_run,
    line_of_error,
    waits_for_person,
)
from onbelay_server.cli.parsing import parse_filter, parse_pairs, read_input
from onbelay_server.cli.run_view import RunView
from onbelay_server.cli.terminal import print_fields, safe, size


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (pb.RUN_STATE_SUCCEEDED, 0),
        (pb.RUN_STATE_FAILED, 1),
        (pb.RUN_STATE_WAITING_FOR_APPROVAL, 3),
        (pb.RUN_STATE_WAITING_FOR_INPUT, 3),
        (pb.RUN_STATE_REVIEWING, 3),
        (pb.RUN_STATE_PAUSED, 3),
        (pb.RUN_STATE_STOPPED, 4),
        (pb.RUN_STATE_RUNNING, 6),
    ],
)
def test_exit_code_of_a_run(state: pb.RunState.ValueType, code: int) -> None:
    assert code_of_run(pb.Run(state=state)) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("x"), ExitCode.USAGE),
        (Unavailable("x"), ExitCode.UNAVAILABLE),
        (DeadlineExceeded("x"), ExitCode.TIMED_OUT),
        (FailedPrecondition("x"), ExitCode.FAILED),
    ],
)
def test_exit_code_of_an_error(error: OnbelayError, code: ExitCode) -> None:
    assert code_of_error(error) is code


def test_an_error_is_one_line_with_reason_fields_and_metadata() -> None:
    error = InvalidArgument(
        "the request\nis wrong",
        reason="INVALID_FIELD",
        fields={"input.name": "is required"},
        metadata={"limit": "3"},
    )
    expected = "the request is wrong [input.name: is required] (INVALID_FIELD limit=3)"
    assert line_of_error(error) == expected


def test_an_unreachable_server_is_said_shortly() -> None:
    error = Unavailable("failed to connect to all addresses; last error: UNKNOWN: Refused")
    assert line_of_error(error) == "the server cannot be reached: Refused"
    assert line_of_error(error, server="127.0.0.1:1") == (
        "the server at 127.0.0.1:1 cannot be reached: Refused; start one with `onbelay serve`"
    )
    far = line_of_error(error, server="grpcs://example.org:443")
    assert far == "the server at grpcs://example.org:443 cannot be reached: Refused"
    other = Unavailable("failed to connect; last error: UNKNOWN: ipv4:x: Failed parsing HTTP/2")
    assert line_of_error(other, server="a:1") == "a:1 is no gRPC server: is it the HTTP port?"


def test_what_is_not_there_is_named_once() -> None:
    error = NotFound("no such run", reason="NOT_FOUND")
    assert line_of_error(error, subject="run_1") == "no such run: run_1 (NOT_FOUND)"
    error = NotFound("no agent of 'a'", reason="NOT_FOUND")
    assert line_of_error(error, subject="a") == "no agent of 'a' (NOT_FOUND)"


def test_a_run_that_goes_on_by_its_timer_needs_no_person() -> None:
    waiting = pb.RUN_STATE_WAITING_FOR_INPUT
    until = Timestamp(seconds=1_900_000_000)
    message, question = pb.Wait(message=True, until=until), pb.Wait(approval_id="apr_1")
    timer = pb.Wait(wake_time=until)
    for waits, needs in (
        ([message], True),
        ([message, timer], False),
        ([question, timer], True),
    ):
        assert waits_for_person(pb.Run(state=waiting, waits=waits)) is needs
    assert waits_for_person(pb.Run(state=pb.RUN_STATE_PAUSED, waits=[timer]))
    assert not waits_for_person(pb.Run(state=pb.RUN_STATE_RUNNING))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße 你好 ✓", "Grüße 你好 ✓"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("pay\u202eevil", "pay\\u202eevil"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("two\nlines", "two\\nlines"),
    ],
)
def test_text_from_elsewhere_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert safe("a\r\nb\tc\x1b", lines=True) == "a\nb\tc\\x1b"


def test_an_approval_shows_its_digest_and_no_escape_of_the_agent() -> None:
    console = Console(width=80, record=True, force_terminal=False, file=None)
    approval = pb.Approval(
        id="apr_1",
        title="Delete \x1b[2Jeverything?",
        summary="**Really** [click](https://evil.example) \x1b]0;title\x07",
        evidence='{"rows": 3}',
        body_sha256="a" * 64,
    )
    with console.capture() as captured:
        show(approval, console)
    text = captured.get()
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "a" * 64 in text
    assert "https://evil.example" in text
    assert '{"rows": 3}' in text


def test_an_approval_is_never_cut_at_the_edge() -> None:
    # Without a terminal consoles do not wrap; a panel must all the same.
    console = Console(width=60, soft_wrap=True)
    words = [f"word{number}" for number in range(60)]
    approval = pb.Approval(id="apr_1", title="Join?", summary=f"- {' '.join(words)}")
    approval.evidence = json.dumps({"text": " ".join(f"proof{number}" for number in range(60))})
    with console.capture() as captured:
        show(approval, console, whole=True)
    shown = captured.get().split()
    assert set(words) <= set(shown)
    assert {f"proof{number}" for number in range(1, 59)} <= set(shown)


def test_fields_without_a_terminal_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("run", "run_1"), ("empty", ""), ("input", '{"text": "' + "x" * 200 + '"}')])
    assert capsys.readouterr().out.splitlines() == [
        "run\trun_1",
        'input\t{"text": "' + "x" * 200 + '"}',
    ]


@pytest.mark.parametrize(
    ("typed", "schema", "sent"),
    [
        ("42", '{"type": "integer"}', "42"),
        ("42", '{"type": "string"}', '"42"'),
        ("yes please", "", '"yes please"'),
        ('{"a": 1}', '{"type": "object"}', '{"a": 1}'),
        ("12345678901234567890", "", "12345678901234567890"),
        ("true", "", "true"),
    ],
)
def test_an_answer_is_json_or_a_string(typed: str, schema: str, sent: str) -> None:
    assert answer_json(typed, schema) == sent


def test_evidence_is_laid_out_without_changing_it() -> None:
    value = {"rules": [{"name": f"rule {n}", "pairs": n} for n in range(20)], "text": "ü"}
    laid_out = pretty(json.dumps(value))
    assert json.loads(laid_out) == value
    assert max(len(line) for line in laid_out.splitlines()) <= 100
    assert pretty("no JSON") == "no JSON"
    assert pretty('"a text"') == "a text"


def test_pairs_and_filters() -> None:
    assert parse_pairs(["a=b", "c=d=e", "f="], "--label") == {"a": "b", "c": "d=e", "f": ""}
    found = parse_filter(["hello"], ["waiting-for-approval", "RUNNING"], ["k=v"], roots=True)
    assert list(found.states) == [pb.RUN_STATE_WAITING_FOR_APPROVAL, pb.RUN_STATE_RUNNING]
    assert found.labels == {"k": "v"}
    assert found.roots_only


@pytest.mark.parametrize("text", ["novalue", "=v"])
def test_a_pair_without_key_or_equals_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_pairs([text], "--label")


@pytest.mark.parametrize("state", ["nope", "unspecified", ""])
def test_an_unknown_state_is_refused_with_the_known_ones(state: str) -> None:
    with pytest.raises(typer.BadParameter, match="succeeded"):
        parse_filter(None, [state], None)


def test_input_goes_on_as_it_was_written() -> None:
    text = '{"b": 12345678901234567890, "a": 1.0}'
    assert read_input(text) == text
    with pytest.raises(typer.BadParameter, match="not JSON"):
        read_input("{nope")


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1024, 5 * 1024**2)] == ["0 B", "1023 B", "1.0 KB", "5.0 MB"]


def test_a_token_is_kept_as_its_sha256() -> None:
    assert token_digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_version_needs_no_command() -> None:
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.output.split()[0]) == (0, "onbelay")


@pytest.mark.parametrize("command", ["serve", "run", "demo", "doctor", "backup", "bench"])
def test_every_command_is_found(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_agents_of_a_file_are_found_without_running_it() -> None:
    source = """
import onbelay_agent
from onbelay_agent import agent
raise SystemExit
@agent
async def one(ctx): ...
@agent(name="two")
def second(ctx): ...
@onbelay_agent.agent
async def three(ctx): ...
@other
def four(): ...
"""
    assert agents_in(source) == ["one", "second", "three"]


def event(**payload: Any) -> pb.RunEvent:
    return pb.RunEvent(sequence=1, **payload)


def test_a_view_adds_events_up() -> None:
    view = RunView()
    run = pb.Run(id="run_1", agent_name="hello", state=pb.RUN_STATE_RUNNING, last_sequence=3)
    started = event(
        step_id="s", step_started=pb.StepStarted(kind=pb.STEP_KIND_STEP, name="download")
    )
    progress = event(progress_reported=pb.ProgressReported(done=3, total=10, note="half"))
    text = event(text_delta=pb.TextDelta(text="Hello \x1b"))
    view.take(pb.WatchRunResponse(run=run, events=[started, progress]))
    assert not view.is_current
    view.take(pb.WatchRunResponse(events=[text], complete_through=3))
    assert view.is_current
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(view)
    shown = captured.get()
    for expected in ("hello", "RUNNING", "download", "3 of 10", "half", "Hello \\x1b"):
        assert expected in shown


def shown_by(view: RunView) -> list[str]:
    console = Console(width=60, force_terminal=False)
    with console.capture() as captured:
        console.print(view)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_pieces_of_a_text_are_joined_and_another_text_begins_a_line() -> None:
    view = RunView()
    step = pb.StepFinished(result_json="1")
    for each in (
        event(text_delta=pb.TextDelta(text="one ")),
        event(progress_reported=pb.ProgressReported(note="n")),
        event(text_delta=pb.TextDelta(text="piece")),
        event(step_id="s", text_delta=pb.TextDelta(text="of a step")),
        event(step_id="s", step_finished=step),
        event(step_id="s", text_delta=pb.TextDelta(text="after it")),
    ):
        view.take(pb.WatchRunResponse(events=[each]))
    shown = shown_by(view)
    at = shown.index("one piece")
    assert shown[at : at + 3] == ["one piece", "of a step", "after it"]


def test_a_report_is_shown_cut() -> None:
    report = pb.CustomReported(name="figures", data_json='{"text":"' + "x" * 500 + '"}')
    line = event_line(event(custom_reported=report))
    assert line is not None
    assert 'report  figures  {"text":"xxx' in line
    assert len(line) < 200
    assert line.endswith("…")
    view = RunView()
    view.take(pb.WatchRunResponse(events=[event(custom_reported=report)]))
    (shown,) = [each for each in shown_by(view) if "figures" in each]
    assert len(shown) == 60


def test_events_only_programs_need_have_no_line() -> None:
    assert event_line(event(usage_recorded=pb.UsageRecorded())) is None
    assert event_line(pb.RunEvent(sequence=9)) is None
    kept = pb.StepStarted(kind=pb.STEP_KIND_ARTIFACT_SAVE, name="file")
    assert event_line(event(step_started=kept)) is None
    said = pb.LogWritten(level=pb.LOG_LEVEL_WARNING, message="hm", data_json="[1]")
    line = event_line(event(log_written=said))
    assert line is not None
    assert line.endswith("warning  hm  [1]")
