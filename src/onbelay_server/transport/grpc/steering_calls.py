"""RunService: holding runs, letting them go on, and talking to them."""

from __future__ import annotations

from onbelay.v1 import run_request_pb2 as pb
from onbelay_server.app.messages import Messages
from onbelay_server.app.pauses import Pauses
from onbelay_server.app.runs import Runs
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.request_id import idempotency
from onbelay_server.transport.grpc.run_wire import to_run
from onbelay_server.transport.grpc.wire import parse_json, struct_json

MAX_DATA_BYTES = 65_536


class SteeringCalls:
    """Answers PauseRun, ResumeRun and SendMessage."""

    def __init__(self, pauses: Pauses, messages: Messages, runs: Runs) -> None:
        self._pauses = pauses
        self._messages = messages
        self._runs = runs

    async def pause_run(self, request: pb.PauseRunRequest, call: Call) -> pb.PauseRunResponse:
        run = await self._pauses.pause(call.caller, request.run_id, idempotency(request, call))
        return pb.PauseRunResponse(run=to_run(await self._runs.view(run)))

    async def resume_run(self, request: pb.ResumeRunRequest, call: Call) -> pb.ResumeRunResponse:
        run = await self._pauses.resume(call.caller, request.run_id, idempotency(request, call))
        return pb.ResumeRunResponse(run=to_run(await self._runs.view(run)))

    async def send_message(
        self, request: pb.SendMessageRequest, call: Call
    ) -> pb.SendMessageResponse:
        run, message_id = await self._messages.send(
            call.caller,
            request.run_id,
            text=request.text,
            data_json=_data(request),
            idempotency=idempotency(request, call),
        )
        return pb.SendMessageResponse(run=to_run(await self._runs.view(run)), message_id=message_id)


def _data(request: pb.SendMessageRequest) -> str:
    """The message's data as JSON text; empty for one of text alone."""
    kind = request.WhichOneof("content")
    if kind == "data":
        text = struct_json(request.data, "data")
    elif kind == "data_json":
        text = request.data_json
    else:
        return ""
    parse_json(text, kind, max_bytes=MAX_DATA_BYTES)
    return text
