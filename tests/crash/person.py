"""The people and the outside systems around the runs of a crash test, following a script."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from grpc import StatusCode

from onbelay.v1 import approval_pb2, operation_pb2, run_pb2
from onbelay.v1 import approval_request_pb2 as approvals_pb
from onbelay.v1 import operation_request_pb2 as operations_pb
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay.v1 import watch_request_pb2 as watch_pb
from onbelay.v1.run_filter_pb2 import RunFilter
from tests.effect_service import EffectService
from tests.recorder import Recorder, Recording

_LOOK_SECONDS = 0.1
_SETTLE_SECONDS = 0.3
"""What a killed process sent last arrives within this time."""


class Person:
    """Decides, answers, completes and says what the run's own words ask for.

    Of a call of unknown outcome it tells the truth: it looks whether it happened."""

    def __init__(self, client: Recorder, service: EffectService) -> None:
        self._client = client
        self._eyes = client.with_recording(Recording())
        self._service = service
        self.unknown: dict[str, str] = {}
        """Approvals of unknown outcomes it was asked for, and what it said."""
        self.sent: set[str] = set()
        """Steps of runs that were said hello to."""

    async def live(self) -> None:
        """Do what is asked until cancelled, whether a server is there or not."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Once around."""
        await self._decide()
        await self._complete()
        await self._speak()

    async def _seen(self, method: str, request: Any) -> Any | None:
        exchange = await self._eyes.exchange(method, request)
        self._eyes.recording.exchanges.clear()
        return exchange.reply if exchange.code is StatusCode.OK else None

    async def _decide(self) -> None:
        request = approvals_pb.ListApprovalsRequest(
            states=[approval_pb2.APPROVAL_STATE_PENDING], page_size=500
        )
        page = await self._seen("ListApprovals", request)
        for approval in page.approvals if page is not None else ():
            decision, answer = await self._verdict(approval)
            if decision:
                order = approvals_pb.DecideApprovalRequest(
                    approval_id=approval.id,
                    decision=approval_pb2.ApprovalDecision.Value(f"APPROVAL_DECISION_{decision}"),
                    body_sha256=approval.body_sha256,
                )
                if answer is not None:
                    order.answer_json = json.dumps(answer)
                await self._client.exchange("DecideApproval", order)

    async def _verdict(self, approval: Any) -> tuple[str, str | None]:
        if approval.kind == approval_pb2.APPROVAL_KIND_UNKNOWN_OUTCOME:
            return await self._truth(approval)
        verb, _, rest = approval.title.partition(" ")
        name = rest.rstrip("?")
        return {
            "approve": ("APPROVE", None),
            "reject": ("REJECT", None),
            "answer": ("ANSWER", name),
        }.get(verb, ("", None))

    async def _truth(self, approval: Any) -> tuple[str, str | None]:
        await asyncio.sleep(_SETTLE_SECONDS)
        key = await self._key(approval.run_id, approval.step_id)
        if not key:
            return "", None
        happened = await self._service.count(key)
        self.unknown[approval.id] = f"{key} happened {happened} times"
        return ("ANSWER", key.rpartition("/")[2]) if happened else ("APPROVE", None)

    async def _key(self, run_id: str, step_id: str) -> str:
        """What the call is known by outside."""
        request = watch_pb.ListRunEventsRequest(run_id=run_id, page_size=1000)
        page = await self._seen("ListRunEvents", request)
        for event in page.events if page is not None else ():
            if event.step_id == step_id and event.HasField("step_started"):
                asked = json.loads(event.step_started.request_json)
                if "arguments" in asked:
                    return str(asked["arguments"]["key"])
                return f"{run_id}/{event.step_started.name}"
        return ""

    async def _complete(self) -> None:
        request = operations_pb.ListOperationsRequest(
            states=[operation_pb2.OPERATION_STATE_OPEN], page_size=500
        )
        page = await self._seen("ListOperations", request)
        for operation in page.operations if page is not None else ():
            kind = operation.name.partition("-")[0]
            order = operations_pb.CompleteOperationRequest(operation_id=operation.id)
            if kind == "operation":
                order.result_json = json.dumps(operation.name)
            elif kind == "refused":
                order.error.message = "refused outside"
            else:
                continue
            await self._client.exchange("CompleteOperation", order)

    async def _speak(self) -> None:
        request = runs_pb.ListRunsRequest(
            filter=RunFilter(states=[run_pb2.RUN_STATE_WAITING_FOR_INPUT]), page_size=500
        )
        page = await self._seen("ListRuns", request)
        for run in page.runs if page is not None else ():
            for wait in run.waits:
                if wait.WhichOneof("subject") == "message":
                    # One name for one wait: however often it is sent, it is said once.
                    said = runs_pb.SendMessageRequest(
                        run_id=run.id, text="hello", request_id=_digest(run.id, wait.step_id)
                    )
                    exchange = await self._client.exchange("SendMessage", said)
                    if exchange.code is StatusCode.OK:
                        self.sent.add(f"{run.id} {wait.step_id}")


def _digest(run_id: str, step_id: str) -> str:
    return f"{run_id}:{abs(hash(step_id)):x}"
