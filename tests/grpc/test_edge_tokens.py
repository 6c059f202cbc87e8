"""What the operator keeps on disk: the tokens file, the developer token, the keys."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from onbelay_server.adapters.credentials.developer_token import (
    developer_credentials,
    load_developer_token,
)
from onbelay_server.adapters.credentials.secret_file import SecretFileError, load_signing_key
from onbelay_server.adapters.credentials.tokens_file import TokensFile, TokensFileError
from onbelay_server.domain.principal import Scope
from tests.manual_clock import ManualClock


def test_the_developer_token_is_made_once_and_kept_to_its_user(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = state / "developer-token"
    token = load_developer_token(path)
    assert token.startswith("obl_dev_")
    assert load_developer_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in state.iterdir()] == ["developer-token"]
    found = developer_credentials(token, ManualClock()).find(token)
    assert found is not None
    assert (found.principal.tenant, found.principal.id) == ("default", "user:developer")
    assert found.principal.scopes == frozenset(Scope)
    path.chmod(0o644)
    with pytest.raises(SecretFileError, match="chmod 600"):
        load_developer_token(path)
    key = load_signing_key(state / "page-tokens.key")
    assert len(key) == 32
    assert load_signing_key(state / "page-tokens.key") == key
    (state / "page-tokens.key").write_text("abc")
    with pytest.raises(SecretFileError, match="32 bytes"):
        load_signing_key(state / "page-tokens.key")


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_a_tokens_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "tokens.toml"
    entry = '[[tokens]]\ntenant = "acme"\nuser = "ada"\nroles = ["viewer"]\n'
    path.write_text(f'{entry}sha256 = "{sha256("one")}"\n')
    tokens = TokensFile(path, clock)
    found = tokens.find("one")
    assert found is not None
    assert found.principal.scopes == {Scope.RUNS_READ, Scope.AGENTS_READ}
    assert set(tokens.tenants()) == {"acme"}
    path.write_text(f'{entry}sha256 = "{sha256("another")}"\n')
    os.utime(path, ns=(1, 1))
    clock.advance(2)
    assert tokens.find("one") is None
    assert tokens.find("another") is not None
    path.write_text("[[tok")
    clock.advance(2)
    assert tokens.find("another") is not None


def test_a_tokens_file_may_be_json_and_entries_expire(tmp_path: Path) -> None:
    clock = ManualClock()
    now = datetime.datetime.fromtimestamp(clock.now_us() / 1e6, datetime.UTC)
    entries = [
        {
            "tenant": "acme",
            "user": "bot",
            "sha256": sha256("old"),
            "roles": ["admin"],
            "person": False,
            "expires": (now - datetime.timedelta(seconds=1)).isoformat(),
        },
        {
            "tenant": "acme",
            "user": "bot",
            "sha256": sha256("new"),
            "scopes": ["*"],
            "person": False,
            "expires": (now + datetime.timedelta(hours=1)).isoformat(),
        },
    ]
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(entries))
    tokens = TokensFile(path, clock)
    assert tokens.find("old") is None
    found = tokens.find("new")
    assert found is not None
    assert (found.principal.id, found.principal.is_person) == ("key:bot", False)
    assert Scope.AGENTS_RUN_CODE not in found.principal.scopes
    assert Scope.TENANT_ADMIN in found.principal.scopes


GOOD = {"tenant": "a", "user": "u", "sha256": sha256("x")}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        '{"tokens": 3}',
        '{"other": []}',
        json.dumps([{**GOOD, "roles": ["king"]}]),
        json.dumps([{**GOOD, "scopes": ["everything"]}]),
        json.dumps([{**GOOD, "sha256": "ABC"}]),
        json.dumps([{**GOOD, "tenant": ""}]),
        json.dumps([{**GOOD, "extra": 1}]),
        json.dumps([{**GOOD, "expires": "2030-01-01T00:00:00"}]),
        json.dumps([GOOD, GOOD]),
    ],
)
def test_a_bad_tokens_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(TokensFileError) as problem:
        TokensFile(path, ManualClock())
    assert "\n" not in str(problem.value)
    with pytest.raises(TokensFileError):
        TokensFile(tmp_path / "absent.toml", ManualClock())
