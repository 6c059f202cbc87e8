"""Settings: what is given goes before the environment, the environment before the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from onbelay_server.cli import tokens
from onbelay_server.cli.connection import Connection
from onbelay_server.cli.embedded import private_settings
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.serving import settings_of
from onbelay_server.config import Settings, split_address


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("ONBELAY_"):
            monkeypatch.delenv(name)


def test_the_database_is_in_the_state_folder_by_default() -> None:
    settings = Settings(state_dir=Path("/somewhere"))
    assert settings.database == "sqlite:////somewhere/onbelay.db"
    assert settings.sqlite_path == Path("/somewhere/onbelay.db")
    assert settings.token_path == Path("/somewhere/developer-token")
    assert settings.blobs_dir == Path("/somewhere/blobs")


def test_the_environment_counts_and_options_go_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONBELAY_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("ONBELAY_AGENTS", "a:b, c.py:d")
    monkeypatch.setenv("ONBELAY_HTTP", "off")
    monkeypatch.setenv("ONBELAY_RETENTION_DAYS", "off")
    monkeypatch.setenv("ONBELAY_LOG_LEVEL", "warning")
    monkeypatch.setenv("ONBELAY_WORKERS", "")
    settings = settings_of(listen=None)
    assert settings.listen == "127.0.0.1:1"
    assert settings.agents == ["a:b", "c.py:d"]
    assert settings.http is None
    assert settings.retention_days is None
    assert settings.log_level == "WARNING"
    assert settings.workers == 64
    assert settings_of(listen="127.0.0.1:2").listen == "127.0.0.1:2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "nonsense"),
        ("listen", "::1:50051"),
        ("http", "host:99999"),
        ("database", "mysql://x"),
        ("workers", 0),
        ("drain_seconds", -1),
        ("retention_days", "soon"),
        ("tls_cert", Path("only-one.pem")),
        ("synchronous", "OFF"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: object) -> None:
    with pytest.raises(CommandFailed) as raised:
        settings_of(**{name: value})
    assert raised.value.code is ExitCode.USAGE
    assert name in raised.value.text or name.replace("_", "-") in raised.value.text


def test_commands_of_a_client_name_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONBELAY_WORKERS", "many")
    for needs_settings in (
        lambda: Connection().client,
        tokens.show,
        lambda: private_settings(tmp_path, []),
    ):
        with pytest.raises(CommandFailed, match="ONBELAY_WORKERS") as raised:
            needs_settings()
        assert raised.value.code is ExitCode.USAGE


def test_a_password_is_not_in_printed_settings() -> None:
    assert "hunter2" not in repr(Settings(database="postgresql://me:hunter2@host/db"))


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:2", ("::1", 2)), ("name:0", ("name", 0))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts
