"""The methods of a service, each with the handler that answers it."""

from __future__ import annotations

import inspect
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from onbelay_server.domain.principal import Scope
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.scopes import scope_of

UnaryHandler: TypeAlias = Callable[[Any, Call], Awaitable[Message]]
StreamHandler: TypeAlias = Callable[[Any, Call], AsyncGenerator["Message | bytes", None]]

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC of the contract; with neither handler it is not built yet."""

    path: str
    scope: Scope | None
    request_type: type[Message]
    is_streaming: bool
    unary: UnaryHandler | None = None
    stream: StreamHandler | None = None

    @property
    def is_built(self) -> bool:
        return self.unary is not None or self.stream is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeMethod:
    """An RPC of gRPC itself (health, reflection), answered on the call's own context."""

    path: str
    is_open: bool
    """Whether it is answered without a credential."""
    is_lasting: bool
    """Whether it stays open for as long as its client likes."""
    answer: Callable[[AsyncIterator[bytes], Any], Awaitable[None]]
    """Reads the encoded requests, writes encoded replies; may raise domain errors."""


def methods(service: ServiceDescriptor, *calls: object) -> Mapping[str, Method]:
    """Every RPC of `service` by its path, answered by the method of `calls` that has its name in
    snake_case.

    A unary handler is `async def get_run(self, request, call) -> GetRunResponse`; a streaming one
    is an async generator of replies, or of bytes that are a reply encoded before. Handlers raise
    domain errors only. Raises ValueError for an RPC with two handlers, for a handler of the wrong
    kind, and for a client stream, which the contract does not have.
    """
    return {found.path: found for found in (_method(rpc, calls) for rpc in service.methods)}


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the contract and the objects that answer its RPCs."""

    descriptor: ServiceDescriptor
    calls: Sequence[object] = ()


def unbuilt_methods(services: Iterable[Service]) -> list[str]:
    """`Service/Method` of every RPC that answers RPC_NOT_BUILT."""
    return [
        f"{service.descriptor.name}/{path.rpartition('/')[2]}"
        for service in services
        for path, found in methods(service.descriptor, *service.calls).items()
        if not found.is_built
    ]


def _method(rpc: Any, calls: tuple[object, ...]) -> Method:
    path = f"/{rpc.containing_service.full_name}/{rpc.name}"
    if rpc.client_streaming:
        raise ValueError(f"{path} takes a stream")
    name = _WORD_START.sub("_", rpc.name).lower()
    handlers = [getattr(part, name) for part in calls if hasattr(part, name)]
    if len(handlers) > 1:
        raise ValueError(f"{path} has {len(handlers)} handlers")
    handler = handlers[0] if handlers else None
    if handler is not None and inspect.iscoroutinefunction(handler) == rpc.server_streaming:
        wanted = "an async generator" if rpc.server_streaming else "a coroutine"
        raise ValueError(f"the handler of {path} is not {wanted}")
    return Method(
        path=path,
        scope=scope_of(path),
        request_type=GetMessageClass(rpc.input_type),
        is_streaming=rpc.server_streaming,
        unary=None if rpc.server_streaming else handler,
        stream=handler if rpc.server_streaming else None,
    )
