"""No call but health is accepted without a credential, and a revoked one ends its streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]

from onbelay.v1 import run_request_pb2, watch_request_pb2
from onbelay_server.transport.grpc.methods import Service
from onbelay_server.transport.grpc.server import GrpcServer, ListenError, Tls, is_loopback
from tests.grpc.edge_server import RUN, Edged, Keys, Refused, edged, ended
from tests.manual_clock import ManualClock
from tests.requirement import find_program, require

Code = grpc.StatusCode
GET = run_request_pb2.GetRunRequest(run_id="run_1")
REFLECTION = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
PATHS = [RUN + "GetRun", RUN + "WatchRun", RUN + "Nothing", "/no.Such/Method", *REFLECTION]


@pytest.fixture
async def edge() -> AsyncIterator[Edged]:
    async with edged() as found:
        yield found


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer  ada"),),
        (("authorization", "Bearer ada ada"),),
        (("authorization", "Basic ada"),),
        (("authorization", "ada"),),
        (("authorization", "Bearer unknown"),),
        (("authorization", "Bearer " + "x" * 3000),),
        (("authorization", "Bearer bad"), ("authorization", "Bearer ada")),
        (("authorization", "Bearer ada"), ("authorization", "Bearer other")),
        (("x-api-key", "ada"),),
    ],
)
async def test_every_path_refuses_every_bad_credential_alike(
    edge: Edged, path: str, metadata: Any
) -> None:
    found = await edge.refused(path, GET, metadata=metadata)
    assert found.code is Code.UNAUTHENTICATED
    assert found.reason in {"CREDENTIAL_MISSING", "CREDENTIAL_INVALID"}
    assert found.infos == 1
    assert found.text == "A valid credential is required: authorization: Bearer <key or token>."
    assert edge.runs.calls == []


async def test_an_unknown_method_is_known_to_be_unknown_with_a_credential(edge: Edged) -> None:
    found = await edge.refused("/no.Such/Method")
    assert (found.code, found.reason) == (Code.UNIMPLEMENTED, "METHOD_UNKNOWN")


async def test_a_missing_scope_is_named(edge: Edged) -> None:
    await edge.call(RUN + "GetRun", GET, token="viewer")
    found = await edge.refused(RUN + "StartRun", token="viewer")
    assert (found.code, found.reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
    assert found.metadata == {"scope": "runs:write"}


async def test_health_needs_no_credential(edge: Edged) -> None:
    stub = health_pb2_grpc.HealthStub(edge.channel)
    for service in ("", "onbelay.v1.RunService"):
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as problem:
        await stub.Check(health_pb2.HealthCheckRequest(service="no.Such"))
    assert Refused.of(problem.value).code is Code.NOT_FOUND
    found = await edge.refused("/grpc.health.v1.Health/Check", b"\xff", token=None)
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    watching = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
    await edge.server.health.pause()
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watching.cancel()


@pytest.mark.parametrize("path", REFLECTION)
async def test_reflection_lists_and_describes_the_services(edge: Edged, path: str) -> None:
    call = edge.channel.stream_stream(
        path,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(metadata=(("authorization", "Bearer ada"),))
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = [found.name for found in (await call.read()).list_services_response.service]
    assert "onbelay.v1.RunService" in listed
    for name in listed:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        assert (await call.read()).file_descriptor_response.file_descriptor_proto, name
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is Code.OK


async def test_bad_reflection_bytes_are_refused_without_text_of_the_decoder(edge: Edged) -> None:
    found = await edge.refused(REFLECTION[0], b"\xff\xff")
    assert (found.code, found.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_REQUEST")


@pytest.mark.parametrize("run_id", ["open", "flood"])
async def test_a_revoked_credential_ends_its_open_streams(edge: Edged, run_id: str) -> None:
    request = watch_request_pb2.WatchRunRequest(run_id=run_id)
    mine = edge.stream(RUN + "WatchRun", request)
    theirs = edge.stream(
        RUN + "WatchRun", watch_request_pb2.WatchRunRequest(run_id="open"), token="other"
    )
    await mine.read()
    await theirs.read()
    del edge.keys.valid["ada"]
    edge.clock.advance(60)
    await asyncio.wait_for(edge.runs.closed.wait(), 20)
    found = await ended(mine)
    assert (found.code, found.reason) == (Code.UNAUTHENTICATED, "CREDENTIAL_INVALID")
    assert not theirs.done()
    theirs.cancel()


async def test_a_stream_that_is_ended_in_its_first_write_still_ends_with_a_status(
    edge: Edged,
) -> None:
    def revoke() -> None:
        del edge.keys.valid["ada"]
        edge.clock.advance(60)

    edge.runs.before_replying = revoke
    request = watch_request_pb2.WatchRunRequest(run_id="open")
    found = await asyncio.wait_for(ended(edge.stream(RUN + "WatchRun", request)), 20)
    assert (found.code, found.reason) == (Code.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def test_a_drain_says_so_first_and_lets_calls_finish(edge: Edged) -> None:
    watching = health_pb2_grpc.HealthStub(edge.channel).Watch(health_pb2.HealthCheckRequest())
    await watching.read()
    waiting = asyncio.ensure_future(
        edge.call(RUN + "GetRun", run_request_pb2.GetRunRequest(run_id="wait"))
    )
    await asyncio.wait_for(edge.runs.started.wait(), 20)
    drain = asyncio.ensure_future(edge.server.drain(20))
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await asyncio.wait_for(edge.draining.wait(), 20)
    found = await edge.refused(RUN + "GetRun", GET)
    assert (found.code, found.reason) == (Code.UNAVAILABLE, "DRAINING")
    assert found.retry_seconds is not None
    edge.runs.gate.set()
    await waiting
    await drain


async def test_a_drain_ends_what_is_left_at_its_grace(edge: Edged) -> None:
    waiting = asyncio.ensure_future(
        edge.refused(RUN + "GetRun", run_request_pb2.GetRunRequest(run_id="wait"))
    )
    await asyncio.wait_for(edge.runs.started.wait(), 20)
    stuck = edge.stream(RUN + "WatchRun", watch_request_pb2.WatchRunRequest(run_id="open"))
    await stuck.read()
    await edge.server.drain(0.05)
    assert edge.runs.closed.is_set()
    found = await ended(stuck)
    assert (found.code, found.reason) == (Code.UNAVAILABLE, "DRAINING")
    assert (await waiting).code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        (":1", False),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_what_only_this_machine_can_reach(listen: str, loopback: bool) -> None:
    assert is_loopback(listen) is loopback


async def test_other_addresses_need_tls_and_a_taken_one_is_told(edge: Edged) -> None:
    def server(listen: str, **more: Any) -> GrpcServer:
        services: list[Service] = []
        return GrpcServer(
            services,
            credentials=Keys(),
            clock=ManualClock(),
            draining=asyncio.Event(),
            listen=listen,
            **more,
        )

    with pytest.raises(ListenError, match="--insecure"):
        server("0.0.0.0:0")
    server("0.0.0.0:0", insecure=True)
    with pytest.raises(ListenError, match="cannot listen") as problem:
        await server(f"127.0.0.1:{edge.port}").start()
    assert "\n" not in str(problem.value)


async def test_tls_is_served_with_the_operators_certificate(tmp_path: Path) -> None:
    openssl = find_program("openssl")
    require("openssl", openssl)
    assert openssl is not None
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    making = await asyncio.create_subprocess_exec(
        *command, "-out", str(certificate), stderr=asyncio.subprocess.DEVNULL
    )
    assert await making.wait() == 0
    tls = Tls(certificate.read_bytes(), key.read_bytes())
    assert "PRIVATE" not in repr(tls)
    async with edged(tls=tls) as edge:
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{edge.port}", trusted) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        plain = await edge.refused(RUN + "GetRun", GET, timeout=5)
        assert plain.code is Code.UNAVAILABLE
    with pytest.raises(ListenError, match="do not fit"):
        async with edged(tls=Tls(b"no certificate", b"no key")):
            pass
