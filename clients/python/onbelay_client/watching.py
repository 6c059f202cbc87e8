"""Watching a run over any number of cuts, as if there were none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc

from onbelay_client import contract as pb
from onbelay_client.calling import Caller
from onbelay_client.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    OnbelayError,
    Unavailable,
    error_of,
)


@dataclass(slots=True, kw_only=True)
class RunWatch:
    """The replies of WatchRun after one position, every event once and in order.

    Iterating ends after the reply whose `end` is FINISHED. A stream that was cut, or whose server
    asks to reconnect, is opened again after `position`. Raises OnbelayError when the server refuses
    or stays away, from the cut on, for longer than patience lasts. One iteration at a time.
    """

    method: grpc.UnaryStreamMultiCallable[pb.WatchRunRequest, pb.WatchRunResponse]
    caller: Caller
    run_id: str
    position: int | None
    """Everything up to this sequence was given out or left out by the filter. None: not yet known,
    because the watch begins with the newest events."""
    last_events: int = 0
    kinds: Sequence[pb.EventKind.ValueType] = ()
    except_kinds: Sequence[pb.EventKind.ValueType] = ()
    heartbeat_seconds: float = 10.0
    patience_seconds: float | None = None
    """How long a server that has answered once may stay away. None: the caller's patience, which
    always holds for the first answer."""
    on_cut: Callable[[OnbelayError], None] | None = None
    """Told of a cut before the stream is opened again, once until the server is heard again."""
    reconnects: int = field(default=0, init=False)
    """How often the stream was opened again."""

    def __iter__(self) -> Iterator[pb.WatchRunResponse]:
        attempt = 0
        patience = self.caller.patience_seconds
        # Counted from the cut: how long a stream was silent before says nothing of its server.
        away_since: float | None = self.caller.monotonic()
        while True:
            stream = self.caller.stream(self.method, self._request())
            error: OnbelayError = Unavailable("the stream was cut")
            try:
                for reply in stream:
                    attempt, away_since = 0, None
                    if self.patience_seconds is not None:
                        patience = self.patience_seconds
                    whole = self._advance(reply)
                    finished = whole and reply.end.reason == pb.STREAM_END_REASON_FINISHED
                    if not finished:
                        # Reconnecting is this loop's business, not the reader's.
                        reply.ClearField("end")
                    yield reply
                    if finished:
                        return
                    if not whole:
                        break
            except grpc.RpcError as raised:
                error = error_of(raised)
            finally:
                stream.cancel()
            if not _was_cut(error):
                raise error
            pause = self.caller.backoff(attempt, error.retry_after_seconds)
            now = self.caller.monotonic()
            if away_since is None:
                away_since = now
            if now - away_since + pause > patience:
                raise error
            if attempt == 0 and self.on_cut is not None:
                self.on_cut(error)
            self.caller.sleep(pause)
            attempt += 1
            self.reconnects += 1

    def events(self) -> Iterator[pb.RunEvent]:
        """The events alone."""
        for reply in self:
            yield from reply.events

    def _request(self) -> pb.WatchRunRequest:
        request = pb.WatchRunRequest(
            run_id=self.run_id, kinds=self.kinds, except_kinds=self.except_kinds
        )
        request.heartbeat_interval.FromMilliseconds(int(self.heartbeat_seconds * 1000))
        if self.position is None:
            request.last_events = self.last_events
        else:
            request.after_sequence = self.position
        return request

    def _advance(self, reply: pb.WatchRunResponse) -> bool:
        """Drop what was given out before and all after a gap; False when there was a gap."""
        unfiltered = not self.kinds and not self.except_kinds
        fresh: list[pb.RunEvent] = []
        whole = True
        for event in reply.events:
            if self.position is not None:
                if event.sequence <= self.position:
                    continue
                if unfiltered and event.sequence != self.position + 1:
                    whole = False
                    break
            fresh.append(event)
            self.position = event.sequence
        if len(fresh) < len(reply.events):
            del reply.events[:]
            reply.events.extend(fresh)
        if whole and reply.complete_through > (self.position or 0):
            self.position = reply.complete_through
        return whole


def _was_cut(error: OnbelayError) -> bool:
    """Whether the stream ended by an accident of the way rather than by the server's word."""
    if isinstance(error, Unavailable) or error.retry_after_seconds is not None:
        return True
    # Proxies and transports end streams with these; the service's own carry a reason.
    return not error.reason and isinstance(error, DeadlineExceeded | Cancelled | InternalError)
