"""The shell walk-through, as it stands in the repository, with `buf curl` and with grpcurl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.grpc.cli_server import cli_server
from tests.requirement import find_program, require

SCRIPT = Path(__file__).resolve().parents[2] / "clients" / "curl" / "data_cleanup.sh"
FILES = ("cleaned.csv", "entities.csv", "report.html", "lineage.json", "lineage.svg")
# buf comes as a wheel with the development dependencies; grpcurl is tried where it happens to be.
PROGRAMS = ["buf", "grpcurl"] if find_program("grpcurl") else ["buf"]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_shell_can_do_the_whole_job(program: str, tmp_path: Path) -> None:
    found = find_program(program)
    require(program, found)
    assert found is not None
    folder = tmp_path / "files"
    with cli_server(tmp_path) as server:
        environment = os.environ | {
            "PATH": f"{Path(found).parent}{os.pathsep}{os.environ['PATH']}",
            "ONBELAY_CURL": program,
            "ONBELAY_SERVER": server.address,
            "ONBELAY_API_KEY": server.token,
        }
        ended = subprocess.run(
            [str(SCRIPT), "", str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name in FILES:
        assert (folder / name).stat().st_size > 0
        assert f"{name}  " in ended.stdout
    for said in ("onbelay.v1.RunService", "APPROVAL_STATE_APPROVED", "RUN_STATE_SUCCEEDED"):
        assert said in ended.stdout
