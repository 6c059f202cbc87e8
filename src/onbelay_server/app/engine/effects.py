"""Tool calls: what may be sent, and what may be sent again."""

from __future__ import annotations

import json
from typing import Any

from onbelay_agent.protocol import Reopened
from onbelay_server.app.engine.batch import Batch
from onbelay_server.app.governance.broker import Broker, Permit
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.event import StepError, StepRestarted, ToolCallFinished, ToolCallStarted
from onbelay_server.domain.run import Run
from onbelay_server.ports.tools import ToolError


class Effects:
    """Records tool calls of one run before they are sent."""

    def __init__(self, run: Run, revision: AgentRevision, broker: Broker) -> None:
        self._run = run
        self._revision = revision
        self._broker = broker

    def call(self, batch: Batch, step_id: str, request: dict[str, Any], attempt: int = 1) -> None:
        """Record a call as about to be sent, or as refused."""
        try:
            permit = self._permit(step_id, request)
        except ToolError as refusal:
            error = StepError(type=refusal.type, message=refusal.message)
            finished = ToolCallFinished(call_id=step_id, tool=request["tool"], error=error)
            batch.add(finished, step_id)
            return
        batch.permits[step_id] = permit
        started = ToolCallStarted(
            call_id=step_id,
            tool=permit.tool,
            arguments_sha256=permit.arguments_sha256,
            idempotency_key=permit.idempotency_key,
            attempt=attempt,
        )
        batch.add(started, step_id)

    def again(self, batch: Batch, again: Reopened, kind: str, request_json: str) -> None:
        """A call begins again under its old id: the copy runs a step, we send a tool call."""
        batch.add(StepRestarted(attempt=again.attempt), again.step_id)
        if kind == "TOOL":
            self.call(batch, again.step_id, json.loads(request_json), again.attempt)

    def may_repeat(self, again: Reopened, kind: str, request_json: str) -> bool:
        """Whether a call that may have happened may simply happen again."""
        if kind == "STEP":
            return not again.once
        if kind != "TOOL":
            return True
        try:
            return self._permit(again.step_id, json.loads(request_json)).may_repeat
        except ToolError:
            return True  # it will be refused, and recorded as such

    def _permit(self, step_id: str, request: dict[str, Any]) -> Permit:
        arguments_json = json.dumps(
            request["arguments"], ensure_ascii=False, separators=(",", ":"), sort_keys=True
        )
        return self._broker.permit(
            self._revision,
            self._run.id,
            step_id,
            request["tool"],
            arguments_json,
            timeout_seconds=request.get("timeout_seconds"),
        )
