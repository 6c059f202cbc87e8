"""How the command line ends: what the operator can mend in plain words, a bug as a bug."""

from __future__ import annotations

from pathlib import Path

import pytest

from onbelay_server.adapters.catalog import CatalogError
from onbelay_server.adapters.tools import ToolsError
from onbelay_server.cli import application
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.domain.error import Unavailable
from onbelay_server.ports.failpoints import FailpointError
from tests.grpc.cli_server import onbelay


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (CommandFailed("no such file", ExitCode.USAGE), "no such file", ExitCode.USAGE),
        (CatalogError("two agents are named a"), "two agents are named a", ExitCode.USAGE),
        (ToolsError("two tools are named t"), "two tools are named t", ExitCode.USAGE),
        (FailpointError("'x' is no failpoint"), "'x' is no failpoint", ExitCode.USAGE),
        (
            FileNotFoundError(2, "No such file or directory", "/nodir/x"),
            "cannot use /nodir/x: no such file or directory",
            ExitCode.FAILED,
        ),
        (Unavailable("away"), "away (STORE_UNAVAILABLE)", ExitCode.UNAVAILABLE),
        (
            ValueError("not enough values to unpack"),
            "unexpected ValueError: not enough values to unpack (ONBELAY_DEBUG=1 shows more)",
            ExitCode.FAILED,
        ),
    ],
)
def test_a_command_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    said: str,
    code: ExitCode,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.delenv(application.DEBUG, raising=False)
    monkeypatch.setattr(application, "app", fail)
    with pytest.raises(SystemExit) as ended:
        application.main()
    assert ended.value.code == code
    assert capsys.readouterr().err.split() == f"error: {said}".split()


def test_debugging_shows_the_traceback_of_an_unexpected_error_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raised: list[Exception] = [CommandFailed("no", ExitCode.USAGE), KeyError("a bug")]

    def fail() -> None:
        raise raised.pop(0)

    monkeypatch.setenv(application.DEBUG, "1")
    monkeypatch.setattr(application, "app", fail)
    with pytest.raises(SystemExit) as ended:
        application.main()
    assert ended.value.code == ExitCode.USAGE
    assert capsys.readouterr().err == "error: no\n"
    with pytest.raises(KeyError):
        application.main()


@pytest.mark.parametrize(
    "options",
    [
        ("--agents", "nofile.py:x"),
        ("--listen", "0.0.0.0:0"),
        ("--tokens-file", "/nodir/tokens"),
        ("--tls-cert", "/nodir/cert", "--tls-key", "/nodir/key"),
    ],
)
def test_serve_with_wrong_values_ends_with_2_and_makes_no_folder(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    state = tmp_path / "state"
    ended = onbelay("serve", "--state-dir", str(state), "--http", "off", *options)
    assert ended.code == ExitCode.USAGE
    assert ended.err.startswith("error: --")
    assert not state.exists()


def test_who_named_the_server_is_said() -> None:
    by_variable = onbelay("run", "hello.py:hello", ONBELAY_SERVER="127.0.0.1:1")
    assert (by_variable.code, "without ONBELAY_SERVER" in by_variable.err) == (2, True)
    by_option = onbelay("run", "hello.py:hello", "--server", "127.0.0.1:1")
    assert "without --server" in by_option.err
