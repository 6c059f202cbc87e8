"""A server as the bench's client sees it: raw bytes in, raw bytes out, whichever it is."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio

from onbelay.v1.run_request_pb2 import StartRunRequest, StartRunResponse
from onbelay.v1.watch_request_pb2 import WatchRunRequest
from onbelay_server.bench.reference import SERVICE as REFERENCE

SERVICE = "onbelay.v1.RunService"
STREAMS_PER_TOKEN = 200
STREAMS_PER_CHANNEL = 100
_OPTIONS = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.use_local_subchannel_pool", 1)]

Stream: TypeAlias = "grpc.aio.UnaryStreamCall[bytes, bytes]"
Metadata: TypeAlias = "tuple[tuple[str, str], ...]"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and the credentials to use in turn (none for a reference server)."""

    address: str
    tokens: Sequence[str] = ()


class Target:
    """Channels to one server; the same code calls the service and the reference servers."""

    def __init__(self, place: Place, streams: int = 1) -> None:
        count = -(-streams // STREAMS_PER_CHANNEL)
        self._channels = [
            grpc.aio.insecure_channel(place.address, options=_OPTIONS) for _ in range(count)
        ]
        self._metadata: list[Metadata] = [
            (("authorization", f"Bearer {token}"),) for token in place.tokens
        ] or [()]
        self.is_service = bool(place.tokens)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def call(self, method: str, request: bytes) -> bytes:
        """A unary call as the first credential."""
        service = SERVICE if self.is_service else REFERENCE
        multi: Any = self._channels[0].unary_unary(f"/{service}/{method}")
        reply: bytes = await multi(request, metadata=self._metadata[0])
        return reply

    def caller(self, method: str) -> Any:
        """A ready multicallable, and the metadata to call it with."""
        service = SERVICE if self.is_service else REFERENCE
        return self._channels[0].unary_unary(f"/{service}/{method}"), self._metadata[0]

    def stream(self, method: str, request: bytes, number: int = 0) -> Stream:
        """Open stream `number` of those that this client opens."""
        service = SERVICE if self.is_service else REFERENCE
        channel = self._channels[number // STREAMS_PER_CHANNEL % len(self._channels)]
        metadata = self._metadata[number // STREAMS_PER_TOKEN % len(self._metadata)]
        multi: Any = channel.unary_stream(f"/{service}/{method}")
        opened: Stream = multi(request, metadata=metadata)
        return opened

    async def start(self, agent: str, order: dict[str, Any]) -> str:
        """Start a run; returns its id."""
        if not self.is_service:
            return (await self.call("Start", json.dumps(order).encode())).decode()
        reply = await self.call("StartRun", start_request(agent, order))
        return StartRunResponse.FromString(reply).run.id

    def watch(self, run_id: str, number: int = 0) -> Stream:
        """Watch a run from its first event."""
        if not self.is_service:
            return self.stream("Watch", run_id.encode(), number)
        request = WatchRunRequest(run_id=run_id)
        return self.stream("WatchRun", request.SerializeToString(), number)


def start_request(agent: str, order: dict[str, Any]) -> bytes:
    """An encoded StartRunRequest with a request_id of its own."""
    return StartRunRequest(
        request_id=secrets.token_hex(12), agent=agent, input_json=json.dumps(order)
    ).SerializeToString()
