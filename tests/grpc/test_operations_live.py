"""Operations of runs that really wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from onbelay.v1 import operation_pb2, run_pb2
from onbelay.v1 import operation_request_pb2 as pb
from tests.grpc.spine_server import judged_server
from tests.recorder import Recorder, Recording
from tests.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("operations")
    async with judged_server(folder, agents=("orderer",)) as found:
        yield found


async def handed_over(ledger: Path) -> tuple[str, str]:
    """Id and token of the operation, once its agent has sent them."""
    async with asyncio.timeout(10):
        while not (words := _words(ledger)):  # noqa: ASYNC110 - it is a file
            await asyncio.sleep(0.01)
    operation_id, token = words
    return operation_id, token


def _words(ledger: Path) -> list[str]:
    """What the ledger says, once its line is whole."""
    text = ledger.read_text() if ledger.exists() else ""
    return text.split() if text.endswith("\n") else []


def completion(operation_id: str, result_json: str = "7") -> pb.CompleteOperationRequest:
    return pb.CompleteOperationRequest(operation_id=operation_id, result_json=result_json)


async def test_a_run_is_blocked_until_its_operation_is_completed(
    server: Server, tmp_path: Path
) -> None:
    client = server.client
    run_id = await client.start("orderer", {"ledger": str(tmp_path / "sent")})
    operation_id, token = await handed_over(tmp_path / "sent")
    run = await client.reached(run_id, "BLOCKED")
    assert [wait.operation_id for wait in run.waits] == [operation_id]
    async with grpc.aio.insecure_channel(server.address) as channel:
        outsider = Recorder(channel, token, Recording())
        done = (await outsider.call("CompleteOperation", completion(operation_id))).operation
        assert (done.state, done.completed_by) == (operation_pb2.OPERATION_STATE_SUCCEEDED, "")
        again = (await outsider.call("CompleteOperation", completion(operation_id))).operation
        assert again == done
        other = await outsider.exchange("CompleteOperation", completion(operation_id, "8"))
        assert other.reason == "OPERATION_CLOSED"
    assert (await client.finished(run_id)).output_json == '"got 7"'
    assert token not in str(await client.events(run_id))


async def test_a_completion_may_come_before_the_wait(server: Server, tmp_path: Path) -> None:
    client, gate = server.client, tmp_path / "gate"
    values = {"ledger": str(tmp_path / "sent"), "gate": str(gate)}
    run_id = await client.start("orderer", values)
    operation_id, _ = await handed_over(tmp_path / "sent")
    await client.call("CompleteOperation", completion(operation_id))
    gate.touch()
    assert (await client.finished(run_id)).output_json == '"got 7"'


async def test_a_failure_is_raised_in_the_agent(server: Server, tmp_path: Path) -> None:
    client = server.client
    run_id = await client.start("orderer", {"ledger": str(tmp_path / "sent")})
    operation_id, _ = await handed_over(tmp_path / "sent")
    error = pb.OperationError(message="sold out", reason="SOLD_OUT")
    request = pb.CompleteOperationRequest(operation_id=operation_id, error=error)
    await client.call("CompleteOperation", request)
    assert "sold out" in (await client.finished(run_id)).output_json


async def test_a_result_of_another_shape_is_refused_and_the_run_still_waits(
    server: Server, tmp_path: Path
) -> None:
    client = server.client
    run_id = await client.start("orderer", {"ledger": str(tmp_path / "sent")})
    operation_id, _ = await handed_over(tmp_path / "sent")
    wrong = await client.exchange("CompleteOperation", completion(operation_id, '"seven"'))
    assert wrong.reason == "ANSWER_MISMATCH"
    await client.reached(run_id, "BLOCKED")
    await client.call("CompleteOperation", completion(operation_id))
    assert (await client.finished(run_id)).output_json == '"got 7"'


async def test_an_operation_expires(server: Server, tmp_path: Path) -> None:
    client = server.client
    run_id = await client.start("orderer", {"ledger": str(tmp_path / "sent"), "expires": 0.3})
    operation_id, _ = await handed_over(tmp_path / "sent")
    run = await client.finished(run_id)
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert run.output_json.startswith('"failed')
    late = await client.exchange("CompleteOperation", completion(operation_id))
    assert late.reason == "OPERATION_CLOSED"
    found = await client.call("GetOperation", pb.GetOperationRequest(operation_id=operation_id))
    assert found.operation.state == operation_pb2.OPERATION_STATE_EXPIRED


async def test_a_stop_voids_what_was_open(server: Server, tmp_path: Path) -> None:
    client = server.client
    run_id = await client.start("orderer", {"ledger": str(tmp_path / "sent")})
    operation_id, _ = await handed_over(tmp_path / "sent")
    await client.reached(run_id, "BLOCKED")
    assert (await client.stop(run_id)).state == run_pb2.RUN_STATE_STOPPED
    late = await client.exchange("CompleteOperation", completion(operation_id))
    assert late.reason == "OPERATION_CLOSED"
    listed = await client.call("ListOperations", pb.ListOperationsRequest(run_id=run_id))
    assert [one.state for one in listed.operations] == [operation_pb2.OPERATION_STATE_VOIDED]
