"""The edge as clients meet it: errors, limits, streams, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from onbelay.v1 import run_request_pb2, watch_request_pb2
from onbelay_server.domain.error import (
    Changed,
    DomainError,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    Lost,
    Unavailable,
)
from onbelay_server.transport.grpc.edge import EdgeLimits
from tests.grpc.edge_server import (
    ACCESS,
    AGENT,
    RUN,
    SECRET,
    Edged,
    bearer,
    caller_of,
    edged,
    ended,
)

Code = grpc.StatusCode


def get(run_id: str) -> run_request_pb2.GetRunRequest:
    return run_request_pb2.GetRunRequest(run_id=run_id)


def watch(run_id: str) -> watch_request_pb2.WatchRunRequest:
    return watch_request_pb2.WatchRunRequest(run_id=run_id)


@pytest.fixture
async def edge() -> AsyncIterator[Edged]:
    async with edged() as found:
        yield found


async def test_a_handler_knows_its_caller_and_method(edge: Edged) -> None:
    await edge.call(RUN + "GetRun", get("run_1"))
    (call,) = edge.runs.calls
    assert (call.caller.tenant, call.caller.id, call.method) == (
        "default",
        "user:ada",
        RUN + "GetRun",
    )


async def test_a_domain_error_arrives_with_code_reason_metadata_and_fields(edge: Edged) -> None:
    edge.runs.problem = InvalidArgument(
        "two fields", FieldViolation("a", "is wrong"), FieldViolation("b.c", "too")
    )
    found = await edge.refused(RUN + "GetRun", get("raise"))
    assert (found.code, found.reason, found.fields) == (
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
        ["a", "b.c"],
    )
    edge.runs.problem = FailedPrecondition(
        "it is busy", reason="SESSION_BUSY", metadata={"active_run_id": "run_2"}
    )
    found = await edge.refused(RUN + "GetRun", get("raise"))
    assert found.code is Code.FAILED_PRECONDITION
    assert (found.text, found.reason) == ("it is busy", "SESSION_BUSY")
    assert found.metadata == {"active_run_id": "run_2"}
    assert found.retry_seconds is None
    edge.runs.problem = Unavailable("the database is away", retry_after_seconds=2.5)
    found = await edge.refused(RUN + "GetRun", get("raise"))
    assert (found.code, found.retry_seconds) == (Code.UNAVAILABLE, 2.5)


@pytest.mark.parametrize("problem", [Lost("lost"), Changed("changed")])
async def test_a_stale_owner_is_asked_to_try_again(edge: Edged, problem: DomainError) -> None:
    edge.runs.problem = problem
    found = await edge.refused(RUN + "GetRun", get("raise"))
    assert (found.code, found.reason) == (Code.UNAVAILABLE, "STALE_OWNER")
    assert found.retry_seconds is not None


@pytest.mark.parametrize(
    "problem",
    [ValueError(SECRET), TimeoutError(SECRET), KeyError(SECRET), DomainError(SECRET)],
    ids=lambda problem: type(problem).__name__,
)
@pytest.mark.parametrize("method", ["GetRun", "WatchRun"])
async def test_a_bug_tells_its_id_and_nothing_else(
    edge: Edged, problem: Exception, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR")
    edge.runs.problem = problem
    if method == "GetRun":
        found = await edge.refused(RUN + method, get("raise"))
    else:
        found = await ended(edge.stream(RUN + method, watch("raise")))
    assert (found.code, found.reason) == (Code.INTERNAL, "INTERNAL")
    assert "c4nary" not in repr(found)
    (line,) = [
        one for one in caplog.records if one.name == "onbelay.calls" and one.levelname == "ERROR"
    ]
    logged = str(vars(line))
    assert found.metadata["error_id"] in logged
    assert "c4nary" in logged
    assert "token" not in logged


async def test_every_wrong_field_is_named(edge: Edged) -> None:
    request = run_request_pb2.StartRunRequest(
        agent="\x07", request_id="x" * 500, labels={"k": "v\x00"}
    )
    found = await edge.refused(RUN + "StartRun", request)
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    assert {"agent", "request_id"} <= set(found.fields)
    assert any(name.startswith("labels") for name in found.fields)
    assert edge.runs.calls == []


async def test_thousands_of_wrong_fields_still_make_a_small_answer(edge: Edged) -> None:
    request = run_request_pb2.StartRunRequest(agent="a")
    for number in range(2000):
        request.labels["\x01" * 300 + str(number)] = "v"
    found = await edge.refused(RUN + "StartRun", request)
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    assert found.fields
    assert len(found.text) <= 500


async def test_unknown_fields_are_ignored(edge: Edged) -> None:
    await edge.call(RUN + "GetRun", get("run_1").SerializeToString() + b"\xfa\x7f\x03abc")


async def test_sizes_are_limited_both_ways(edge: Edged) -> None:
    found = await edge.refused(RUN + "GetRun", b"\xfa\x7f" + b"\xa0\xb4\xc4\x02" + b"x" * 5_314_080)
    assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE")
    found = await edge.refused(RUN + "GetRun", get("huge"))
    assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE")
    far = await edge.refused(RUN + "GetRun", b"x" * 20_000_000)
    assert far.code is Code.RESOURCE_EXHAUSTED
    await edge.call(RUN + "GetRun", get("run_1"))


async def test_the_servers_own_deadline_is_its_own_reason() -> None:
    async with edged(EdgeLimits(unary_seconds=0.05)) as edge:
        found = await edge.refused(RUN + "GetRun", get("wait"))
        assert (found.code, found.reason) == (Code.DEADLINE_EXCEEDED, "SERVER_DEADLINE")
        assert edge.runs.closed.is_set()


async def test_the_clients_deadline_ends_the_handler(edge: Edged) -> None:
    found = await edge.refused(RUN + "GetRun", get("wait"), timeout=0.05)
    assert found.code is Code.DEADLINE_EXCEEDED
    await asyncio.wait_for(edge.runs.closed.wait(), 20)


async def test_a_cancelled_unary_call_ends_its_handler(edge: Edged) -> None:
    call = edge.channel.unary_unary(RUN + "GetRun")(
        get("wait").SerializeToString(), metadata=bearer("ada")
    )
    waiting = asyncio.ensure_future(call)
    await asyncio.wait_for(edge.runs.started.wait(), 20)
    call.cancel()
    await asyncio.wait_for(edge.runs.closed.wait(), 20)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_stream_sends_messages_and_ready_bytes(edge: Edged) -> None:
    replies = [
        watch_request_pb2.WatchRunResponse.FromString(data)
        async for data in edge.stream(RUN + "WatchRun", watch("end"))
    ]
    assert [reply.complete_through for reply in replies] == [1, 2]
    assert edge.runs.closed.is_set()


@pytest.mark.parametrize("run_id", ["open", "flood"])
async def test_a_cancelled_stream_closes_its_generator_at_once(edge: Edged, run_id: str) -> None:
    call = edge.stream(RUN + "WatchRun", watch(run_id))
    await call.read()
    call.cancel()
    await asyncio.wait_for(edge.runs.closed.wait(), 20)
    await asyncio.wait_for(edge.server.idle(), 5)


async def test_streams_are_limited_per_principal() -> None:
    async with edged(EdgeLimits(streams_per_principal=2)) as edge:
        held = [edge.stream(RUN + "WatchRun", watch("open")) for _ in range(2)]
        for call in held:
            await call.read()
        found = await ended(edge.stream(RUN + "WatchRun", watch("open")))
        assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        assert found.retry_seconds is not None
        other = edge.stream(RUN + "WatchRun", watch("end"), token="other")
        assert await other.read() is not grpc.aio.EOF
        held[0].cancel()
        edge.runs.gate.set()
        assert (await ended(held[1])).code is Code.OK
        assert (await ended(edge.stream(RUN + "WatchRun", watch("end")))).code is Code.OK


async def test_unary_calls_in_flight_are_limited_per_principal() -> None:
    async with edged(EdgeLimits(calls_per_principal=1)) as edge:
        first = asyncio.ensure_future(edge.call(RUN + "GetRun", get("wait")))
        await asyncio.wait_for(edge.runs.started.wait(), 20)
        found = await edge.refused(RUN + "GetRun", get("run_1"))
        assert (found.code, found.reason) == (Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        await edge.call(RUN + "GetRun", get("run_1"), token="other")
        edge.runs.gate.set()
        await first
        await edge.call(RUN + "GetRun", get("run_1"))


async def test_what_is_not_built_says_so(edge: Edged) -> None:
    found = await edge.refused(AGENT + "ListTools")
    assert (found.code, found.reason) == (Code.UNIMPLEMENTED, "RPC_NOT_BUILT")
    assert found.metadata == {"method": AGENT + "ListTools"}
    introduced = caller_of(await edge.call(ACCESS + "GetCaller"))
    assert "AgentService/ListTools" in introduced.server.unbuilt_methods
    assert "AccessService/CreateApiKey" in introduced.server.unbuilt_methods
    assert "RunService/GetRun" not in introduced.server.unbuilt_methods


async def test_a_caller_learns_who_it_is(edge: Edged) -> None:
    found = caller_of(await edge.call(ACCESS + "GetCaller", token="viewer"))
    assert (found.caller.principal, found.caller.tenant) == ("user:vic", "default")
    assert list(found.caller.roles) == ["viewer"]
    assert list(found.caller.scopes) == ["agents:read", "runs:read"]
    assert found.caller.person
    assert not found.caller.HasField("expire_time")
    assert found.server.version == "0.1.0"
    assert found.limits.max_streams == 4


async def test_one_line_is_logged_a_call_without_what_was_in_it(
    edge: Edged, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "onbelay.calls")
    await edge.call(RUN + "GetRun", get("payload-c4nary"))
    (line,) = [one for one in caplog.records if one.name == "onbelay.calls"]
    said = vars(line)
    assert said["action"] == "call_finished"
    assert said["method"] == RUN + "GetRun"
    assert "c4nary" not in str(said)


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_two_hundred_cut_streams_leave_nothing(edge: Edged, after: int) -> None:
    before = asyncio.all_tasks()
    for _ in range(200):
        call = edge.stream(RUN + "WatchRun", watch("open"))
        for _ in range(after):
            await call.read()
        call.cancel()
    await edge.call(RUN + "GetRun", get("run_1"))
    await asyncio.wait_for(edge.server.idle(), 10)
    # The client's own calls end on the next turns of the loop; one new task is the server's, which
    # waits for the next call in place of the one that waited before.
    await asyncio.wait(asyncio.all_tasks() - before, timeout=0.5)
    assert len(asyncio.all_tasks()) <= len(before)


async def test_a_deadline_of_a_millisecond_is_only_that(edge: Edged) -> None:
    async def hasty(method: str, request: bytes) -> grpc.StatusCode:
        try:
            await edge.call(RUN + method, request, timeout=0.001)
        except grpc.aio.AioRpcError as problem:
            return problem.code()
        return Code.OK

    data = get("wait").SerializeToString()
    found = await asyncio.gather(*(hasty("GetRun", data) for _ in range(100)))
    assert set(found) == {Code.DEADLINE_EXCEEDED}
    await asyncio.wait_for(edge.server.idle(), 10)


@pytest.mark.parametrize(
    ("size", "codes"), [(6_000, {Code.OK}), (40_000, {Code.RESOURCE_EXHAUSTED})]
)
async def test_metadata_is_limited(edge: Edged, size: int, codes: set[grpc.StatusCode]) -> None:
    metadata = (*bearer("ada"), ("x-padding", "x" * size))
    try:
        await edge.call(RUN + "GetRun", get("run_1"), metadata=metadata)
        code = Code.OK
    except grpc.aio.AioRpcError as problem:
        code = problem.code()
    assert code in codes


async def test_a_compressed_bomb_is_refused(edge: Edged) -> None:
    found = await edge.refused(
        RUN + "GetRun", b"\0" * 100_000_000, compression=grpc.Compression.Gzip, timeout=20
    )
    assert found.code is Code.RESOURCE_EXHAUSTED
    await edge.call(RUN + "GetRun", get("run_1"))


async def test_a_second_request_is_never_looked_at(edge: Edged) -> None:
    call = edge.channel.stream_stream(RUN + "WatchRun")(metadata=bearer("ada"), timeout=5)
    await call.write(watch("end").SerializeToString())
    await call.write(b"\xff\xff")
    await call.done_writing()
    assert (await ended(call)).code is Code.OK
    assert len(edge.runs.calls) == 1


@pytest.mark.parametrize("method", ["GetRun", "WatchRun"])
async def test_a_call_without_a_request_is_refused(edge: Edged, method: str) -> None:
    call = edge.channel.stream_stream(RUN + method)(metadata=bearer("ada"), timeout=5)
    await call.done_writing()
    found = await ended(call)
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_REQUEST")


@pytest.mark.parametrize("method", ["GetRun", "WatchRun"])
async def test_a_request_that_never_comes_is_not_waited_for(method: str) -> None:
    async with edged(EdgeLimits(unary_seconds=0.05)) as edge:
        call = edge.channel.stream_stream(RUN + method)(metadata=bearer("ada"), timeout=5)
        found = await ended(call)
        assert (found.code, found.reason) == (Code.DEADLINE_EXCEEDED, "SERVER_DEADLINE")
