"""The synchronous client against a channel that a test answers by hand (grpcio-testing)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from onbelay.v1 import access_service_pb2, agent_service_pb2, run_service_pb2
from onbelay_client import (
    Client,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OnbelayError,
)
from onbelay_client import contract as pb
from onbelay_client.calling import Caller

RUN_SERVICE = run_service_pb2.DESCRIPTOR.services_by_name["RunService"]
SERVICES = [
    RUN_SERVICE,
    agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
    access_service_pb2.DESCRIPTOR.services_by_name["AccessService"],
]


class Bench:
    """A client, the channel a test answers on, and the pauses the client made."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.channel = grpc_testing.channel(SERVICES, grpc_testing.strict_fake_time(0))
        self.pauses: list[float] = []
        self.now = 0.0
        caller = Caller("secret", sleep=self._sleep, monotonic=lambda: self.now)
        self.client = Client(self.channel, caller)
        self.pool = pool

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def take(self, method: str) -> tuple[Any, Any, Any]:
        return self.channel.take_unary_unary(RUN_SERVICE.methods_by_name[method])

    def take_stream(self, method: str) -> tuple[Any, Any, Any]:
        return self.channel.take_unary_stream(RUN_SERVICE.methods_by_name[method])


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(1) as pool:
        yield Bench(pool)


def rich(code: int, text: str, *details: Any) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata as the service sends it with an error."""
    packed = []
    for detail in details:
        each = any_pb2.Any()
        each.Pack(detail)
        packed.append(each)
    state = status_pb2.Status(code=code, message=text, details=packed)
    return (("grpc-status-details-bin", state.SerializeToString()),)


def info(reason: str, **metadata: str) -> Any:
    return error_details_pb2.ErrorInfo(reason=reason, domain="onbelay.dev", metadata=metadata)


def test_a_call_carries_the_credential_and_a_request_id(bench: Bench) -> None:
    started = bench.pool.submit(bench.client.runs.start, "hello", {"name": "Ada"})
    metadata, request, rpc = bench.take("StartRun")
    assert ("authorization", "Bearer secret") in metadata
    assert request.agent == "hello"
    assert request.input_json == '{"name":"Ada"}'
    assert request.request_id
    rpc.terminate(pb.StartRunResponse(run=pb.Run(id="run_1")), (), grpc.StatusCode.OK, "")
    assert started.result(5).run.id == "run_1"


def test_unavailable_is_repeated_with_the_same_request_id(bench: Bench) -> None:
    stopped = bench.pool.submit(bench.client.runs.stop, "run_1", "enough")
    _, first, rpc = bench.take("StopRun")
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2))
    trailer = rich(code_pb2.UNAVAILABLE, "shutting down", info("DRAINING"), retry)
    rpc.terminate(None, trailer, grpc.StatusCode.UNAVAILABLE, "shutting down")
    _, second, rpc = bench.take("StopRun")
    rpc.terminate(pb.StopRunResponse(), (), grpc.StatusCode.OK, "")
    stopped.result(5)
    assert first == second
    assert bench.pauses == [2.0]


def test_an_error_has_class_reason_metadata_and_fields(bench: Bench) -> None:
    got = bench.pool.submit(bench.client.runs.get, "")
    _, _, rpc = bench.take("GetRun")
    violation = error_details_pb2.BadRequest.FieldViolation(field="run_id", description="too short")
    trailer = rich(
        code_pb2.INVALID_ARGUMENT,
        "run_id: too short",
        info("INVALID_FIELD", limit="1"),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    rpc.terminate(None, trailer, grpc.StatusCode.INVALID_ARGUMENT, "run_id: too short")
    with pytest.raises(InvalidArgument) as raised:
        got.result(5)
    assert raised.value.reason == "INVALID_FIELD"
    assert raised.value.metadata == {"limit": "1"}
    assert raised.value.fields == {"run_id": "too short"}
    assert str(raised.value) == "run_id: too short (INVALID_FIELD)"
    assert bench.pauses == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPrecondition),
        (grpc.StatusCode.UNKNOWN, OnbelayError),
    ],
)
def test_every_code_has_its_class(
    bench: Bench, code: grpc.StatusCode, kind: type[OnbelayError]
) -> None:
    got = bench.pool.submit(bench.client.runs.get, "run_1")
    _, _, rpc = bench.take("GetRun")
    rpc.terminate(None, (("grpc-status-details-bin", b"\xff not a message"),), code, "no")
    with pytest.raises(kind, match="no"):
        got.result(5)


def test_pages_are_followed(bench: Bench) -> None:
    listed = bench.pool.submit(lambda: [run.id for run in bench.client.runs.each()])
    _, request, rpc = bench.take("ListRuns")
    assert request.page_token == ""
    page = pb.ListRunsResponse(runs=[pb.Run(id="b")], next_page_token="more")
    rpc.terminate(page, (), grpc.StatusCode.OK, "")
    _, request, rpc = bench.take("ListRuns")
    assert request.page_token == "more"
    rpc.terminate(pb.ListRunsResponse(runs=[pb.Run(id="a")]), (), grpc.StatusCode.OK, "")
    assert listed.result(5) == ["b", "a"]


def test_update_names_only_what_is_given(bench: Bench) -> None:
    updated = bench.pool.submit(bench.client.runs.update, "run_1", title="New")
    _, request, rpc = bench.take("UpdateRun")
    assert list(request.update_mask.paths) == ["title"]
    rpc.terminate(pb.UpdateRunResponse(), (), grpc.StatusCode.OK, "")
    updated.result(5)


def test_upload_goes_on_where_the_server_says(bench: Bench) -> None:
    content = bytes(range(256)) * 5000  # two chunks
    put = bench.pool.submit(bench.client.artifacts.put, content, "table.csv")
    _, first, rpc = bench.take("PutArtifact")
    assert (first.offset_bytes, first.finish, len(first.content)) == (0, False, 1024 * 1024)
    assert first.media_type == "text/csv"
    rpc.terminate(pb.PutArtifactResponse(), (), grpc.StatusCode.OK, "")
    _, second, rpc = bench.take("PutArtifact")
    assert (second.offset_bytes, second.finish) == (1024 * 1024, True)
    trailer = rich(
        code_pb2.FAILED_PRECONDITION,
        "no such upload",
        info("UPLOAD_OFFSET_MISMATCH", next_offset_bytes="0"),
    )
    rpc.terminate(None, trailer, grpc.StatusCode.FAILED_PRECONDITION, "no such upload")
    for _ in range(2):
        _, last, rpc = bench.take("PutArtifact")
        assert last.upload_id == first.upload_id
        reply = pb.PutArtifactResponse()
        if last.finish:
            reply.artifact.id = "art_1"
        rpc.terminate(reply, (), grpc.StatusCode.OK, "")
    assert put.result(5).artifact.id == "art_1"
