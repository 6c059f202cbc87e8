"""RunService: starting, reading, stopping and deleting runs."""

from __future__ import annotations

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as pb
from onbelay_server.app.idempotency import Idempotency
from onbelay_server.app.runs import Runs
from onbelay_server.app.starts import StartOrder, Starts
from onbelay_server.app.stops import Stops
from onbelay_server.app.watching.watches import Watches
from onbelay_server.domain.error import NotBuilt
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import Place, RunFilter
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.page_token import PageTokens, fitting, page_size
from onbelay_server.transport.grpc.request_id import idempotency
from onbelay_server.transport.grpc.run_wire import filter_of, to_run
from onbelay_server.transport.grpc.wire import (
    from_duration,
    from_timestamp,
    parse_json,
    struct_json,
    to_timestamp,
)

MAX_INPUT_BYTES = 2**20
MAX_WINDING_DOWN = 20
"""Descendants that a stopped run names."""
_WAIT_SECONDS = 30.0
_MAX_WAIT_SECONDS = 50.0
_NOT_BUILT = ("budget", "session_id", "session_policy")


class RunCalls:
    """Answers what concerns whole runs."""

    def __init__(
        self,
        starts: Starts,
        runs: Runs,
        stops: Stops,
        watches: Watches,
        tokens: PageTokens,
        clock: Clock,
    ) -> None:
        self._starts = starts
        self._runs = runs
        self._stops = stops
        self._watches = watches
        self._tokens = tokens
        self._clock = clock

    async def start_run(self, request: pb.StartRunRequest, call: Call) -> pb.StartRunResponse:
        _refuse_unbuilt(request)
        repeat = idempotency(request, call)
        assert repeat is not None, "the contract requires a request_id"
        started = await self._starts.start(call.caller, _order(request, repeat))
        view = await self._runs.view(started.run)
        return pb.StartRunResponse(run=to_run(view), already_started=started.already_started)

    async def get_run(self, request: pb.GetRunRequest, call: Call) -> pb.GetRunResponse:
        view = await self._runs.get(call.caller, request.run_id)
        message = to_run(view, winding_down=await self._winding_down(view.run, call))
        message.accepts_messages = view.accepts_messages
        return pb.GetRunResponse(run=message, server_time=to_timestamp(self._clock.now_us()))

    async def list_runs(self, request: pb.ListRunsRequest, call: Call) -> pb.ListRunsResponse:
        limit = page_size(request.page_size)
        views = await self._runs.list(
            call.caller,
            filter_of(request.filter),
            after=self._tokens.read(request, call.caller),
            limit=limit + 1,
        )
        is_full = request.view == run_pb2.RUN_VIEW_FULL
        page = fitting(to_run(view, is_full=is_full) for view in views[:limit])
        response, shown = pb.ListRunsResponse(runs=page), len(page)
        if shown < len(views):
            last = views[shown - 1].run
            place = Place(last.create_us, last.id)
            response.next_page_token = self._tokens.issue(request, call.caller, place)
        return response

    async def update_run(self, request: pb.UpdateRunRequest, call: Call) -> pb.UpdateRunResponse:
        paths = set(request.update_mask.paths)
        view = await self._runs.update(
            call.caller,
            request.run_id,
            title=request.title if "title" in paths else None,
            labels=dict(request.labels) if "labels" in paths else None,
            idempotency=idempotency(request, call),
        )
        return pb.UpdateRunResponse(run=to_run(view))

    async def delete_run(self, request: pb.DeleteRunRequest, call: Call) -> pb.DeleteRunResponse:
        deleted = await self._runs.delete(call.caller, request.run_id, idempotency(request, call))
        return pb.DeleteRunResponse(deleted_runs=deleted)

    async def stop_run(self, request: pb.StopRunRequest, call: Call) -> pb.StopRunResponse:
        run = await self._stops.stop(
            call.caller, request.run_id, request.reason, idempotency(request, call)
        )
        below = await self._winding_down(run, call)
        return pb.StopRunResponse(run=to_run(await self._runs.view(run), winding_down=below))

    async def _winding_down(self, run: Run, call: Call) -> list[Run]:
        """Descendants that a stop of this run reached and that are not gone yet."""
        if run.stop is None or not run.child_count:
            return []
        stopping = RunFilter(root_id=run.root_id, states=[RunState.STOPPING])
        found = await self._runs.list(call.caller, stopping, after=None, limit=MAX_WINDING_DOWN)
        return [
            one.run
            for one in found
            if one.run.id != run.id
            and (one.run.parent_id == run.id or (one.run.stop and one.run.stop.root_id == run.id))
        ]

    async def stop_runs(self, request: pb.StopRunsRequest, call: Call) -> pb.StopRunsResponse:
        stopped = await self._stops.stop_many(
            call.caller,
            filter_of(request.filter),
            request.reason,
            idempotency(request, call),
        )
        return pb.StopRunsResponse(stopped_run_ids=stopped.run_ids, more=stopped.more)

    async def wait_run(self, request: pb.WaitRunRequest, call: Call) -> pb.WaitRunResponse:
        seconds = _WAIT_SECONDS
        if request.HasField("timeout"):
            seconds = from_duration(request.timeout, "timeout", maximum_seconds=_MAX_WAIT_SECONDS)
        run, timed_out = await self._watches.wait(
            call.caller,
            request.run_id,
            for_attention=request.until == pb.WAIT_UNTIL_ATTENTION,
            after_sequence=request.after_sequence,
            timeout_seconds=seconds,
        )
        return pb.WaitRunResponse(
            run=to_run(await self._runs.view(run)),
            timed_out=timed_out,
            server_time=to_timestamp(self._clock.now_us()),
        )


def _refuse_unbuilt(request: pb.StartRunRequest) -> None:
    """Fields that would promise what nobody keeps yet."""
    given = {field.name for field, _ in request.ListFields()}
    for name in _NOT_BUILT:
        if name in given:
            raise NotBuilt(f"this version does not know {name} yet", metadata={"field": name})


def _order(request: pb.StartRunRequest, repeat: Idempotency) -> StartOrder:
    input_json: str | None = None
    kind = request.WhichOneof("input_value")
    if kind == "input":
        input_json = struct_json(request.input, "input")
        parse_json(input_json, "input", max_bytes=MAX_INPUT_BYTES)
    elif kind == "input_json":
        input_json = request.input_json
        parse_json(input_json, "input_json", max_bytes=MAX_INPUT_BYTES)
    not_before_us = None
    if request.HasField("not_before"):
        not_before_us = from_timestamp(request.not_before, "not_before")
    is_rerun = bool(request.rerun_of)
    return StartOrder(
        agent=request.agent,
        agent_revision=request.agent_revision if request.HasField("agent_revision") else None,
        input_json=input_json,
        input_artifacts=dict(request.input_artifacts) or (None if is_rerun else {}),
        labels=dict(request.labels) or (None if is_rerun else {}),
        title=request.title or (None if is_rerun else ""),
        rerun_of=request.rerun_of,
        not_before_us=not_before_us,
        idempotency=repeat,
    )
