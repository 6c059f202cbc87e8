"""RunService: watching. Replies are built from stored bytes; no event is ever encoded again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from onbelay.v1 import watch_request_pb2 as pb
from onbelay_server.app.runs import Runs
from onbelay_server.app.watching.lists import ListWatches
from onbelay_server.app.watching.watches import (
    Draining,
    Position,
    StreamEnd,
    Watches,
    WatchPage,
)
from onbelay_server.domain.error import Unavailable
from onbelay_server.ports.clock import Clock
from onbelay_server.transport.grpc.approval_wire import to_approval
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.page_token import page_size
from onbelay_server.transport.grpc.run_wire import filter_of, to_run, to_run_state
from onbelay_server.transport.grpc.wire import from_duration, to_timestamp

_HEARTBEAT_SECONDS = 10.0
_RECONNECT_SECONDS = 1.0


class WatchCalls:
    """Answers WatchRun, WatchRuns and ListRunEvents."""

    def __init__(
        self,
        watches: Watches,
        lists: ListWatches,
        runs: Runs,
        clock: Clock,
    ) -> None:
        self._watches = watches
        self._lists = lists
        self._runs = runs
        self._clock = clock

    async def watch_run(
        self, request: pb.WatchRunRequest, call: Call
    ) -> AsyncGenerator[bytes, None]:
        is_last = request.WhichOneof("position") == "last_events"
        where = Position(
            after=request.after_sequence,
            last=request.last_events if is_last else None,
            kinds=tuple(request.kinds),
            except_kinds=tuple(request.except_kinds),
            heartbeat_seconds=_heartbeat(request),
        )
        async with aclosing(self._watches.watch(call.caller, request.run_id, where)) as pages:
            try:
                async for page in pages:
                    yield page.frame + (await self._rest(page)).SerializeToString()
            except Draining:
                raise _reconnect() from None

    async def _rest(self, page: WatchPage) -> pb.WatchRunResponse:
        """Everything of a reply but its events."""
        message = pb.WatchRunResponse(
            complete_through=page.complete_through,
            server_time=to_timestamp(self._clock.now_us()),
        )
        if page.run is not None:
            message.run.CopyFrom(to_run(await self._runs.view(page.run)))
        if page.end is not None:
            message.end.CopyFrom(_end(page.end))
        return message

    async def list_run_events(
        self, request: pb.ListRunEventsRequest, call: Call
    ) -> pb.ListRunEventsResponse:
        wait_seconds = 0.0
        if request.HasField("wait"):
            wait_seconds = from_duration(request.wait, "wait", maximum_seconds=30.0)
        page = await self._watches.list(
            call.caller,
            request.run_id,
            Position(
                after=request.after_sequence,
                kinds=tuple(request.kinds),
                except_kinds=tuple(request.except_kinds),
            ),
            limit=page_size(request.page_size),
            wait_seconds=wait_seconds,
        )
        response = pb.ListRunEventsResponse.FromString(page.frame)
        response.complete_through = page.complete_through
        response.last_sequence = page.run.last_sequence
        response.state = to_run_state(page.run.state)
        response.server_time.CopyFrom(to_timestamp(self._clock.now_us()))
        return response

    async def watch_runs(
        self, request: pb.WatchRunsRequest, call: Call
    ) -> AsyncGenerator[pb.WatchRunsResponse, None]:
        which = filter_of(request.filter)
        async with aclosing(self._lists.watch(call.caller, which, _heartbeat(request))) as pages:
            try:
                async for page in pages:
                    views = [await self._runs.view(run) for run in page.runs]
                    yield pb.WatchRunsResponse(
                        runs=[to_run(view, is_full=False) for view in views],
                        left_run_ids=page.left_run_ids,
                        approvals=[to_approval(one, is_full=True) for one in page.approvals],
                        caught_up=page.caught_up,
                        server_time=to_timestamp(self._clock.now_us()),
                        end=_end(page.end) if page.end is not None else None,
                    )
            except Draining:
                raise _reconnect() from None


def _heartbeat(request: pb.WatchRunRequest | pb.WatchRunsRequest) -> float:
    if not request.HasField("heartbeat_interval"):
        return _HEARTBEAT_SECONDS
    return from_duration(
        request.heartbeat_interval, "heartbeat_interval", minimum_seconds=1.0, maximum_seconds=55.0
    )


def _end(end: StreamEnd) -> pb.StreamEnd:
    return pb.StreamEnd(reason=pb.StreamEndReason.Value(f"STREAM_END_REASON_{end.value}"))


def _reconnect() -> Unavailable:
    return Unavailable(
        "the stream ends here: reconnect from complete_through",
        reason="DRAINING",
        retry_after_seconds=_RECONNECT_SECONDS,
    )
