"""A database that goes away under the server: said by health, and nothing is acknowledged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from onbelay.v1 import run_request_pb2
from onbelay_server import wiring
from tests.grpc.spine_server import judged_server

_Response = health_pb2.HealthCheckResponse


async def test_health_follows_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "_STORE_CHECK_SECONDS", 0.05)
    async with judged_server(tmp_path, agents=["hello"]) as server:
        file, moved = tmp_path / "onbelay.db", tmp_path / "moved.db"
        async with grpc.aio.insecure_channel(server.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == _Response.SERVING
            await asyncio.to_thread(file.rename, moved)
            assert (await watch.read()).status == _Response.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(
                    "/onbelay.v1.RunService/StartRun",
                    request_serializer=run_request_pb2.StartRunRequest.SerializeToString,
                )(
                    run_request_pb2.StartRunRequest(
                        request_id="r1", agent="hello", input_json='{"name":"Ada"}'
                    ),
                    metadata=[("authorization", f"Bearer {server.token}")],
                )
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            await asyncio.to_thread(moved.rename, file)
            assert (await watch.read()).status == _Response.SERVING
            watch.cancel()
