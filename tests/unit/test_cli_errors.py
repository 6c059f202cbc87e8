"""How the command line ends: what the operator can mend in plain words, a bug as a bug."""

from __future__ import annotations

import pytest

from onbelay_server.adapters.catalog import CatalogError
from onbelay_server.adapters.tools import ToolsError
from onbelay_server.cli import application
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.domain.error import Unavailable
from onbelay_server.ports.failpoints import FailpointError


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (CommandFailed("no such file", ExitCode.USAGE), "no such file", ExitCode.USAGE),
        (CatalogError("two agents are named a"), "two agents are named a", ExitCode.FAILED),
        (ToolsError("two tools are named t"), "two tools are named t", ExitCode.FAILED),
        (FailpointError("'x' is no failpoint"), "'x' is no failpoint", ExitCode.FAILED),
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
