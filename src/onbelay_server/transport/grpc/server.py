"""The gRPC server: its options, its port, and its way down."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio

from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import Credentials
from onbelay_server.transport.grpc.edge import Edge, EdgeLimits, draining_refusal
from onbelay_server.transport.grpc.health import SERVICE_NAME, Health
from onbelay_server.transport.grpc.methods import Method, Service, methods
from onbelay_server.transport.grpc.reflection import reflection_methods

_RECHECK_SECONDS: Final = 10.0
_CUT_SECONDS: Final = 0.5

# Far past what the edge allows, so that a message that is merely too large gets the edge's answer;
# what is larger still is refused by gRPC before it is in memory.
_MAX_RECEIVE_BYTES: Final = 8 * 2**20

_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", _MAX_RECEIVE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # Against floods by one connection; what a caller may have open is the edge's business.
    ("grpc.max_concurrent_streams", 1024),
    # A second server on the same port must fail, not quietly take half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without this a frozen client is noticed after a minute, whatever the keepalive says.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_idle_ms", 15 * 60_000),
    ("grpc.enable_channelz", 0),
)


class ListenError(Exception):
    """The address cannot be served; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's own certificate chain and private key, PEM."""

    certificate: bytes
    private_key: bytes = field(repr=False)


class GrpcServer:
    """Serves the contract's services, health and reflection on one address.

    `draining` is set when the server begins to go down: whoever holds a stream open ends it then.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        credentials: Credentials,
        clock: Clock,
        draining: asyncio.Event,
        listen: str,
        tls: Tls | None = None,
        insecure: bool = False,
        limits: EdgeLimits | None = None,
    ) -> None:
        """Raises ListenError for an address that others can reach without TLS, unless `insecure`;
        ValueError and CompilationError for services that cannot be served as they are."""
        if tls is None and not insecure and not is_loopback(listen):
            raise ListenError(
                f"{listen} can be reached from outside: give a TLS certificate and key, or allow "
                "plain text with --insecure"
            )
        found: dict[str, Method] = {}
        for service in services:
            found |= methods(service.descriptor, *service.calls)
        names = [service.descriptor.full_name for service in services]
        self.health = Health(names)
        natives = {**self.health.methods(), **reflection_methods([*names, SERVICE_NAME])}
        self._edge = Edge(
            found,
            natives,
            credentials=credentials,
            clock=clock,
            draining=draining,
            limits=limits or EdgeLimits(),
        )
        self._credentials = credentials
        self._clock = clock
        self._draining = draining
        self._listen = listen
        self._tls = tls
        self._server: grpc.aio.Server | None = None
        self._recheck: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen and answer; returns the port. Health says NOT_SERVING until `health.serve()`.
        Raises ListenError when the address is taken or not ours."""
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._edge,))
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._listen)
            else:
                pair = (self._tls.private_key, self._tls.certificate)
                port = server.add_secure_port(self._listen, grpc.ssl_server_credentials([pair]))
        except RuntimeError:
            reason = "it is in use or not an address of this machine"
            if self._tls is not None:
                reason += ", or certificate and key do not fit"
            raise ListenError(f"cannot listen on {self._listen}: {reason}") from None
        await self.health.pause()
        await server.start()
        self._server = server
        self._recheck = asyncio.create_task(self._recheck_credentials())
        return port

    async def drain(self, grace_seconds: float) -> None:
        """Health first, then no new calls; streams are told to end and calls in flight may finish
        within the grace. What is left is cut."""
        await self.health.close()
        self._draining.set()
        server, recheck = self._server, self._recheck
        if server is None or recheck is None:
            return
        self._server = self._recheck = None
        await self._idle_within(grace_seconds)
        self._edge.admission.end_streams(draining_refusal())
        await self._idle_within(_CUT_SECONDS)
        recheck.cancel()
        await asyncio.gather(recheck, return_exceptions=True)
        await server.stop(0)
        # gRPC has told the handlers that are left; what they clean up must happen before we go.
        await self._idle_within(_CUT_SECONDS)

    async def _idle_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.idle()

    async def idle(self) -> None:
        """Return once no call and no stream of a caller is left."""
        await self._edge.admission.idle()

    async def _recheck_credentials(self) -> None:
        while True:
            await self._clock.sleep(_RECHECK_SECONDS)
            self._edge.admission.recheck(self._credentials)


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach `host:port`."""
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
