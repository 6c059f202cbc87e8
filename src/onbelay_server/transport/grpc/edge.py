"""The outermost wrapper: every call passes here, and nothing else aborts, decodes or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from onbelay_server.domain.error import (
    DomainError,
    InvalidArgument,
    NotBuilt,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import Credentials
from onbelay_server.transport.grpc.admission import Admission, ending
from onbelay_server.transport.grpc.authentication import Bearer, authenticate
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.call_log import CallLog
from onbelay_server.transport.grpc.errors import (
    STATUS_DETAILS_KEY,
    ServerDeadline,
    code_of,
    to_wire,
)
from onbelay_server.transport.grpc.methods import Method, NativeMethod
from onbelay_server.transport.grpc.validation import RequestCheck

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

# What grpc.aio raises from a write or an abort when the other side is gone.
_GONE = (grpc.aio.InternalError, grpc.aio.UsageError)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """What one call and one caller may take."""

    unary_seconds: float = 60.0
    """Longest unary call. gRPC itself ends one whose client asked for less."""
    request_bytes: int = 4 * 2**20
    response_bytes: int = 4 * 2**20
    calls_per_principal: int = 512
    """Unary calls in flight."""
    streams_per_principal: int = 256


class Edge(grpc.GenericRpcHandler):
    """Authenticates, admits, decodes, checks, calls the handler and maps what it raises.

    A call that is refused before its body matters is refused without reading the body. Streams are
    written by a plain coroutine, so that a cancelled call ends its handler here and now, and not
    when a garbage collector finds it.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        natives: Mapping[str, NativeMethod],
        *,
        credentials: Credentials,
        clock: Clock,
        draining: asyncio.Event,
        limits: EdgeLimits,
    ) -> None:
        self._methods = methods
        self._natives = natives
        self._credentials = credentials
        self._clock = clock
        self._draining = draining
        self._limits = limits
        self._check = RequestCheck(found.request_type for found in methods.values())
        self.admission = Admission(
            calls_per_principal=limits.calls_per_principal,
            streams_per_principal=limits.streams_per_principal,
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """The handler of one call; a call that may not be made gets one that only refuses."""
        path = handler_call_details.method
        bearer: Bearer | None = None
        try:
            native = self._natives.get(path)
            if native is not None and native.is_open:
                return self._native(native, None)
            bearer = authenticate(handler_call_details.invocation_metadata, self._credentials)
            if native is not None:
                if not bearer.caller.scopes:
                    raise PermissionDenied("the credential is for one purpose only")
                return self._native(native, bearer)
            method = self._admitted(path, bearer)
            return (
                self._stream(method, bearer) if method.is_streaming else self._unary(method, bearer)
            )
        except Exception as problem:  # noqa: BLE001  what is raised here would reach the client as text
            return self._refusal(path, bearer, problem)

    def _admitted(self, path: str, bearer: Bearer) -> Method:
        method = self._methods.get(path)
        if method is None:
            raise NotBuilt("no such service or method", reason="METHOD_UNKNOWN")
        if method.scope is not None and method.scope not in bearer.caller.scopes:
            raise PermissionDenied(
                f"the credential lacks the scope {method.scope}", metadata={"scope": method.scope}
            )
        if not method.is_built:
            raise NotBuilt(
                "this version of the server does not have this method yet",
                metadata={"method": path},
            )
        if self._draining.is_set():
            raise draining_refusal()
        return method

    def _refusal(self, path: str, bearer: Bearer | None, problem: Exception) -> Handler:
        async def refuse(_requests: AsyncIterator[bytes], context: Context) -> None:
            log = CallLog(self._clock, path, bearer.caller if bearer else None)
            await self._refuse(context, problem, log)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _unary(self, method: Method, bearer: Bearer) -> Handler:
        async def answer(_requests: object, context: Context) -> bytes:
            log = CallLog(self._clock, method.path, bearer.caller)
            try:
                with self.admission.call(bearer.caller):
                    response = await self._respond(method, bearer, context, log)
            except asyncio.CancelledError:
                log.finish("CANCELLED")
                raise
            except Exception as problem:  # noqa: BLE001  mapped, logged and sent in one place
                await self._refuse(context, problem, log)
            log.finish("OK")
            return response

        return grpc.stream_unary_rpc_method_handler(answer)

    async def _respond(
        self, method: Method, bearer: Bearer, context: Context, log: CallLog
    ) -> bytes:
        assert method.unary is not None
        async with self._own_deadline():
            request = await self._request(method, context, log)
            reply = await method.unary(request, _call(method, bearer))
        return self._encoded(reply, log)

    def _stream(self, method: Method, bearer: Bearer) -> Handler:
        async def answer(_requests: object, context: Context) -> None:
            log = CallLog(self._clock, method.path, bearer.caller)
            try:
                with self.admission.stream(bearer) as stream, ending(stream):
                    await self._send(method, bearer, context, log)
            except asyncio.CancelledError:
                log.finish("CANCELLED")
                raise
            except Exception as problem:  # noqa: BLE001  mapped, logged and sent in one place
                await self._refuse(context, problem, log)
            log.finish("OK")

        return grpc.stream_stream_rpc_method_handler(answer)

    async def _send(self, method: Method, bearer: Bearer, context: Context, log: CallLog) -> None:
        assert method.stream is not None
        async with self._own_deadline():
            request = await self._request(method, context, log)
        replies = method.stream(request, _call(method, bearer))
        async with aclosing(replies):
            async for reply in replies:
                data = self._encoded(reply, log)
                if log.replies == 1:
                    await _send_headers(context)
                try:
                    await context.write(data)
                except _GONE:
                    raise asyncio.CancelledError from None

    def _native(self, native: NativeMethod, bearer: Bearer | None) -> Handler:
        async def answer(requests: AsyncIterator[bytes], context: Context) -> None:
            log = CallLog(self._clock, native.path, bearer.caller if bearer else None)
            try:
                if bearer is not None:
                    with self.admission.stream(bearer) as stream, ending(stream):
                        await _send_headers(context)
                        await native.answer(requests, context)
                elif native.is_lasting:
                    with self.admission.nobody():
                        await native.answer(requests, context)
                else:
                    await native.answer(requests, context)
            except asyncio.CancelledError:
                log.finish("CANCELLED")
                raise
            except _GONE:
                log.finish("CANCELLED")
                raise asyncio.CancelledError from None
            except Exception as problem:  # noqa: BLE001  mapped, logged and sent in one place
                await self._refuse(context, problem, log)
            log.finish("OK")

        return grpc.stream_stream_rpc_method_handler(answer)

    async def _request(self, method: Method, context: Context, log: CallLog) -> Any:
        """The call's one request. Every method is served as if it took a stream: gRPC's own unary
        handler leaves a call without a request open for ever, and waits for a slow one as long."""
        try:
            data = await context.read()
        except _GONE:
            raise asyncio.CancelledError from None
        if not isinstance(data, bytes):
            raise InvalidArgument("the call came without a request", reason="MALFORMED_REQUEST")
        log.request_bytes = len(data)
        if len(data) > self._limits.request_bytes:
            raise _too_large("request", len(data), self._limits.request_bytes)
        return self._check.read(method.request_type, data)

    @asynccontextmanager
    async def _own_deadline(self) -> AsyncIterator[None]:
        seconds = self._limits.unary_seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise ServerDeadline(f"the call took longer than {seconds:g} seconds") from None

    def _encoded(self, reply: Any, log: CallLog) -> bytes:
        data: bytes = reply if type(reply) is bytes else reply.SerializeToString()
        if len(data) > self._limits.response_bytes:
            raise _too_large("response", len(data), self._limits.response_bytes)
        log.replies += 1
        log.response_bytes += len(data)
        return data

    async def _refuse(self, context: Context, problem: Exception, log: CallLog) -> NoReturn:
        """The only place that aborts."""
        if isinstance(problem, DomainError) and code_of(problem) is not grpc.StatusCode.INTERNAL:
            wire = to_wire(problem)
        else:
            wire = to_wire(log.fault(problem))
        log.finish(wire.code.name, wire.reason)
        try:
            await context.abort(wire.code, wire.text, ((STATUS_DETAILS_KEY, wire.details),))
        except _GONE:
            raise asyncio.CancelledError from None


async def _send_headers(context: Context) -> None:
    """Send a stream's headers to their end, also when the stream is ended meanwhile.

    gRPC notes that they are out only after the await. Interrupted in it, it would send them again
    with the status, fail in that, and leave the client waiting for an end for ever.
    """
    sending = asyncio.ensure_future(context.send_initial_metadata(()))
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.gather(sending, return_exceptions=True)
        raise
    except _GONE:
        raise asyncio.CancelledError from None


def draining_refusal() -> Unavailable:
    """What callers of a server that goes down are told."""
    return Unavailable("the server is shutting down", reason="DRAINING")


def _call(method: Method, bearer: Bearer) -> Call:
    return Call(bearer.caller, method.path, bearer.credential)


def _too_large(what: str, size_bytes: int, limit_bytes: int) -> ResourceExhausted:
    return ResourceExhausted(
        f"the {what} has {size_bytes} bytes, more than the {limit_bytes} allowed",
        reason="PAYLOAD_TOO_LARGE",
        metadata={"size_bytes": str(size_bytes), "limit_bytes": str(limit_bytes)},
    )
