"""`grpc.health.v1`: the only service that needs no credential."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_health.v1.health import aio as health_aio  # type: ignore[import-untyped]

from onbelay_server.domain.error import InvalidArgument, NotFound
from onbelay_server.transport.grpc.methods import NativeMethod
from onbelay_server.transport.grpc.validation import parse

SERVICE_NAME: Final = "grpc.health.v1.Health"

_Response = health_pb2.HealthCheckResponse


class Health:
    """Whether the server and each of its services take calls."""

    def __init__(self, services: Iterable[str]) -> None:
        self._servicer = health_aio.HealthServicer()
        self._names = ("", *services)

    async def serve(self) -> None:
        """Everything is up."""
        await self._set(serving=True)

    async def pause(self) -> None:
        """Not now (the database is away); `serve` takes it back."""
        await self._set(serving=False)

    async def close(self) -> None:
        """Shutting down; nothing takes it back."""
        await self._servicer.enter_graceful_shutdown()

    def methods(self) -> Mapping[str, NativeMethod]:
        """Check and Watch, to be hung beside the services."""
        check, watch = f"/{SERVICE_NAME}/Check", f"/{SERVICE_NAME}/Watch"
        return {
            check: NativeMethod(path=check, is_open=True, is_lasting=False, answer=self._check),
            watch: NativeMethod(path=watch, is_open=True, is_lasting=True, answer=self._watch),
        }

    async def _set(self, *, serving: bool) -> None:
        state = _Response.SERVING if serving else _Response.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, state)

    async def _check(self, requests: AsyncIterator[bytes], context: Any) -> None:
        request = await _only(requests)
        if request.service not in self._names:
            raise NotFound("no such service")
        reply = await self._servicer.Check(request, context)
        await context.write(reply.SerializeToString())

    async def _watch(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self._servicer.Watch(await _only(requests), _Encoding(context))


class _Encoding:
    """The call's context for a servicer that writes messages: the edge's streams carry bytes."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def write(self, message: health_pb2.HealthCheckResponse) -> None:
        await self._context.write(message.SerializeToString())


async def _only(requests: AsyncIterator[bytes]) -> health_pb2.HealthCheckRequest:
    async for data in requests:
        return parse(health_pb2.HealthCheckRequest, data)
    raise InvalidArgument("the call came without a request", reason="MALFORMED_REQUEST")
