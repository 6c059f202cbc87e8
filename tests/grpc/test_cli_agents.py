"""Agents, care of a server, and a command that brings its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from onbelay_server.adapters.clock import SystemClock
from onbelay_server.adapters.credentials.tokens_file import TokensFile
from tests.grpc.cli_server import AGENTS, CliServer, cli_server, onbelay


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliServer]:
    with cli_server(tmp_path_factory.mktemp("cli")) as running:
        yield running


def test_agents_are_listed_and_shown(server: CliServer) -> None:
    listed = server("agents", "list", "--prefix", "gre")
    assert listed.out.split("\t")[0] == "greeter"
    shown = server("agents", "get", "greeter")
    assert "Greets." in shown.out
    assert server("agents", "get", "nobody").code == 1
    revisions = server("agents", "revisions", "greeter")
    assert revisions.out.startswith("1\t")


def test_a_fork_is_changed_checked_and_deleted(server: CliServer, tmp_path: Path) -> None:
    assert "data-cleanup" in server("agents", "blueprints").out
    forked = server("agents", "fork", "data-cleanup", "my-cleanup")
    assert forked.code == 0, forked
    document = json.loads(server("agents", "get", "my-cleanup", "--json").out)["agent"]
    file = tmp_path / "agent.json"
    file.write_text(json.dumps({"id": document["id"], "description": "Mine."}))
    update = ("agents", "update", str(file), "--field", "description")
    assert server(*update, "--etag", document["etag"]).code == 0
    stale = server(*update, "--etag", document["etag"])
    assert stale.code == 1
    assert "ETAG_MISMATCH" in stale.err
    assert "Mine." in server("agents", "get", "my-cleanup").out
    assert server("agents", "delete", "my-cleanup", "--yes").code == 0


def test_making_an_agent_that_cannot_be_started_says_why(server: CliServer, tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text('{"name": "no-code"}')
    made = server("agents", "create", str(file))
    assert made.code == 0, made
    assert "no-code" in made.out
    assert made.err.startswith("warning: ")
    assert "cannot be started" in made.err


def test_a_document_that_is_none_is_a_usage_error(server: CliServer, tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text('{"nme": "x"}')
    ended = server("agents", "create", str(file))
    assert ended.code == 2
    assert "nme" in ended.err
    assert server("agents", "create", str(tmp_path / "absent.json")).code == 2


def test_validate_says_what_is_wrong(server: CliServer) -> None:
    document = json.dumps({"name": "x", "inputSchemaJson": "{nope"})
    ended = server("agents", "validate", "-", stdin=document)
    assert ended.code == 1
    assert "not startable" in ended.out


def test_code_runs_right_here(tmp_path: Path) -> None:
    file = tmp_path / "here_agents.py"
    file.write_text(AGENTS)
    ended = onbelay("run", f"{file}:greeter", "--input", '{"name": "Ada"}')
    assert (ended.code, ended.out) == (0, "Hello Ada\n")
    assert onbelay("run", f"{file}:breaker").code == 1
    assert onbelay("run", f"{file}:absent").code == 2


def test_code_is_not_sent_to_a_server(server: CliServer, tmp_path: Path) -> None:
    ended = server("run", f"{tmp_path / 'x.py'}:x")
    assert ended.code == 2
    assert "onbelay serve --agents" in ended.err


def test_doctor_tells_good_from_wrong(server: CliServer, tmp_path: Path) -> None:
    place = {
        "ONBELAY_STATE_DIR": str(server.state_dir),
        "ONBELAY_LISTEN": "127.0.0.1:0",
        "ONBELAY_HTTP": "off",
    }
    ended = onbelay("doctor", "--json", "--server", server.address, **place)
    found = {each["name"]: each["verdict"] for each in json.loads(ended.out)}
    assert ended.code == 0, ended
    assert found["server"] == found["clock"] == found["database"] == found["permissions"] == "ok"

    place["ONBELAY_STATE_DIR"] = str(tmp_path)
    (tmp_path / "developer-token").write_text("secret")
    (tmp_path / "developer-token").chmod(0o644)
    with closing(sqlite3.connect(tmp_path / "onbelay.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
    ended = onbelay("doctor", "--server", "127.0.0.1:1", **place)
    assert ended.code == 1
    assert "onbelay migrate" in ended.out
    assert "chmod" in ended.out
    assert "secret" not in ended.out


def test_doctor_looks_at_what_the_servers_options_name(tmp_path: Path) -> None:
    tokens, key, cert = tmp_path / "tokens.toml", tmp_path / "key.pem", tmp_path / "cert.pem"
    options = ["--state-dir", str(tmp_path), "--tokens-file", str(tokens)]
    options += ["--tls-cert", str(cert), "--tls-key", str(key), "--listen", "127.0.0.1:0"]
    wrong = _wrong("doctor", "--json", *options, "--http", "off", "--server", "127.0.0.1:1")
    assert str(tokens) in wrong["tokens file"]
    assert str(cert) in wrong["tls"]

    tokens.write_text('[[tokens]]\ntenant = "acme"\n')
    for path in (tokens, key, cert, tmp_path / "operation-key", tmp_path / "page-token-key"):
        path.touch(mode=0o644)
    wrong = _wrong("doctor", "--json", *options, "--http", "off", "--server", "127.0.0.1:1")
    assert "tokens.0.user" in wrong["tokens file"]
    assert "do not fit" in wrong["tls"]
    for name in ("tokens.toml", "key.pem", "operation-key", "page-token-key"):
        assert f"{name} (644)" in wrong["permissions"]
    assert "cert.pem" not in wrong["permissions"]


def _wrong(*command: str) -> dict[str, str]:
    """What is wrong, by the name of the check."""
    ended = onbelay(*command)
    assert ended.code == 1, ended
    return {one["name"]: one["text"] for one in json.loads(ended.out) if one["verdict"] == "wrong"}


def test_backup_can_be_served_from(server: CliServer, tmp_path: Path) -> None:
    given = tmp_path / "in.txt"
    given.write_text("kept")
    ended = server("run", "copier", "--file", f"in.txt={given}")
    assert ended.out.strip() == "4"
    target = tmp_path / "backup"
    place = {"ONBELAY_STATE_DIR": str(server.state_dir)}
    assert onbelay("backup", str(target), **place).code == 0
    assert onbelay("backup", str(target), **place).code == 2
    kept = {path.name for path in (target / "blobs").rglob("*") if path.is_file()}
    assert hashlib.sha256(b"KEPT").hexdigest() in kept
    assert oct((target / "onbelay.db").stat().st_mode & 0o777) == "0o600"
    (next((target / "blobs").rglob("*/*/*"))).write_bytes(b"damaged")
    other = {"ONBELAY_STATE_DIR": str(target)}
    damaged = onbelay("backup", str(tmp_path / "again"), **other)
    assert damaged.code == 1
    assert "damaged" in damaged.err
    assert not (tmp_path / "again").exists()


def test_backup_of_postgresql_says_what_to_run(tmp_path: Path) -> None:
    place = {"ONBELAY_DATABASE": "postgresql://me:hunter2@host:5433/db"}
    ended = onbelay("backup", str(tmp_path / "out"), **place)
    assert ended.code == 2
    assert "pg_dump" in ended.err
    assert "hunter2" not in ended.err


def test_migrate_makes_a_database_and_can_be_repeated(tmp_path: Path) -> None:
    place = {"ONBELAY_STATE_DIR": str(tmp_path)}
    for _ in range(2):
        assert onbelay("migrate", **place).code == 0
    assert (tmp_path / "onbelay.db").is_file()


def test_a_second_process_on_the_same_file_is_told_in_one_line(server: CliServer) -> None:
    ended = onbelay("migrate", ONBELAY_STATE_DIR=str(server.state_dir))
    assert ended.code == 1
    assert "in use" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_tokens_are_made_and_digested(tmp_path: Path) -> None:
    made = onbelay("token", "make", "--user", "ada", "--role", "viewer", "--program")
    token = made.err.rsplit(" ", 1)[1].strip()
    digest = onbelay("token", "hash", stdin=token + "\n").out.strip()
    assert digest == hashlib.sha256(token.encode()).hexdigest()
    assert f'sha256 = "{digest}"' in made.out
    assert token not in made.out
    file = tmp_path / "tokens.toml"
    file.write_text(made.out)
    file.chmod(0o600)
    credential = TokensFile(file, SystemClock()).find(token)
    assert credential is not None
    assert (credential.principal.id, credential.principal.is_person) == ("key:ada", False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "0.0.0.0:0"), "TLS"),
        (("--agents", "no_such_module:agent"), "no_such_module"),
        (("--tools", "no_such_module"), "no_such_module"),
        (("--tokens-file", "no-such-file"), "no-such-file"),
        (("--tls-cert", "only-one.pem"), "tls"),
        (("--listen", "nonsense"), "--listen"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(
    options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    place = ("--state-dir", str(tmp_path), "--http", "off")
    listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
    ended = onbelay("serve", *place, *listen, *options)
    assert ended.code in (1, 2)
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.out == ""


def test_serve_says_where_and_drains_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onbelay_server", "serve", "--listen", "127.0.0.1:0"]
    command += ["--http", "off", "--state-dir", str(tmp_path), "--drain-seconds", "2"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONBELAY_")}
    path = os.pathsep.join(part for part in sys.path if part)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kept | {"PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split()[-1]
        token = (tmp_path / "developer-token").read_text().strip()
        assert token in process.stdout.readline()
        assert address in process.stdout.readline()
        ended = onbelay("agents", "list", "--server", address, "--api-key", token)
        assert ended.code == 0, ended
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err
