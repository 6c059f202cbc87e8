"""docs/contract.md says of each RPC whether a real server has it."""

from __future__ import annotations

from pathlib import Path

from onbelay_client import connect
from onbelay_server.cli.embedded import EmbeddedServer, private_settings
from tests.unit.test_contract_page import BUILT


def test_the_page_knows_what_the_server_lacks(tmp_path: Path) -> None:
    with EmbeddedServer(private_settings(tmp_path / "state", [])) as serving:
        assert serving.token is not None
        with connect(serving.grpc_address, serving.token) as client:
            unbuilt = client.caller().server.unbuilt_methods
    assert sorted(name for name, is_built in BUILT.items() if not is_built) == sorted(unbuilt)
