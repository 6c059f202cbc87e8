"""How much each caller may have going on at once, and which streams are open."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from onbelay_server.domain.error import DomainError, ResourceExhausted
from onbelay_server.domain.principal import Principal
from onbelay_server.ports.credentials import Credentials
from onbelay_server.transport.grpc.authentication import Bearer, revoked

_Key: TypeAlias = tuple[str, str]
_NOBODY: Final[_Key] = ("", "")


@dataclass(slots=True, eq=False)
class OpenStream:
    """A stream that is being sent, and the task that sends it."""

    bearer: Bearer
    task: asyncio.Task[object] = field(repr=False)
    refusal: DomainError | None = None
    """Why it is being ended from outside."""

    def end(self, refusal: DomainError) -> None:
        """Make the task end the stream with `refusal`, also in the middle of a write."""
        if self.refusal is None:
            self.refusal = refusal
            self.task.cancel()


class Admission:
    """Counts calls and streams by principal, and refuses past the limits.

    One caller's flood takes nothing from the others. Callers without a credential (health watchers)
    share one count.
    """

    def __init__(self, *, calls_per_principal: int, streams_per_principal: int) -> None:
        self._calls_limit = calls_per_principal
        self._streams_limit = streams_per_principal
        self._calls: Counter[_Key] = Counter()
        self._streams: Counter[_Key] = Counter()
        self._open: set[OpenStream] = set()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def call(self, caller: Principal) -> Iterator[None]:
        """A unary call in flight. Raises ResourceExhausted (QUOTA_EXCEEDED)."""
        key = (caller.tenant, caller.id)
        if self._calls[key] >= self._calls_limit:
            raise ResourceExhausted(
                f"more than {self._calls_limit} calls of this caller are in flight",
                metadata={"quota": "calls in flight", "limit": str(self._calls_limit)},
                retry_after_seconds=1.0,
            )
        with self._counted(self._calls, key):
            self._busy += 1
            self._idle.clear()
            try:
                yield
            finally:
                self._leave()

    @contextmanager
    def stream(self, bearer: Bearer) -> Iterator[OpenStream]:
        """An open stream, sent by the current task. Raises ResourceExhausted (TOO_MANY_STREAMS)."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream is sent by a task")
        with self._stream_place((bearer.caller.tenant, bearer.caller.id)):
            stream = OpenStream(bearer, task)
            self._open.add(stream)
            self._busy += 1
            self._idle.clear()
            try:
                yield stream
            finally:
                self._open.discard(stream)
                self._leave()

    @contextmanager
    def nobody(self) -> Iterator[None]:
        """A stream that needs no credential. Raises ResourceExhausted (TOO_MANY_STREAMS)."""
        with self._stream_place(_NOBODY):
            yield

    def recheck(self, credentials: Credentials) -> None:
        """End the open streams whose credential is gone or allows something else now."""
        for stream in tuple(self._open):
            credential = credentials.find(stream.bearer.token)
            if credential != stream.bearer.credential:
                stream.end(revoked())

    def end_streams(self, refusal: DomainError) -> None:
        """End every stream of a caller that is still open."""
        for stream in tuple(self._open):
            stream.end(refusal)

    async def idle(self) -> None:
        """Return once no call and no stream of a caller is left."""
        await self._idle.wait()

    @contextmanager
    def _stream_place(self, key: _Key) -> Iterator[None]:
        if self._streams[key] >= self._streams_limit:
            raise ResourceExhausted(
                f"more than {self._streams_limit} streams of this caller are open",
                reason="TOO_MANY_STREAMS",
                metadata={"limit": str(self._streams_limit)},
                retry_after_seconds=1.0,
            )
        with self._counted(self._streams, key):
            yield

    @contextmanager
    def _counted(self, counts: Counter[_Key], key: _Key) -> Iterator[None]:
        counts[key] += 1
        try:
            yield
        finally:
            counts[key] -= 1
            if not counts[key]:
                # Principals come and go; a counter that only grows would remember them all.
                del counts[key]

    def _leave(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()


@contextmanager
def ending(stream: OpenStream) -> Iterator[None]:
    """Turn the cancellation that `OpenStream.end` caused into its refusal; pass any other on."""
    try:
        yield
    except asyncio.CancelledError:
        # More than our own request to cancel means that the call itself is being torn down.
        if stream.refusal is None or stream.task.uncancel() > 0:
            raise
        raise stream.refusal from None
