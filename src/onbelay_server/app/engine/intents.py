"""What an agent's calls come to in the store: the rows and events of each kind of call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onbelay_agent.protocol import Intent, Reopened
from onbelay_server.app.governance.broker import Broker, Permit
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.approval import Approval, body_digest
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import EncodedEvent, Entity, NewEvent
from onbelay_server.domain.event import (
    ApprovalRequested,
    ArtifactSaved,
    StepCancelled,
    StepError,
    StepFinished,
    StepRestarted,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
)
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import ApprovalKind, ApprovalState, StepKind
from onbelay_server.ports.tools import ToolError


@dataclass(slots=True)
class Batch:
    """The part of a unit that calls add."""

    put: list[Entity] = field(default_factory=list)
    delete: list[Wait] = field(default_factory=list)
    events: list[NewEvent | EncodedEvent] = field(default_factory=list)
    permits: dict[str, Permit] = field(default_factory=dict)
    """Tool calls that may be sent once it is committed, by step."""

    def open_waits(self, stored: Sequence[Wait]) -> list[Wait]:
        """What the run waits for, with what this unit adds and ends."""
        gone = {wait.step_id for wait in self.delete}
        waits = [*stored, *(one for one in self.put if isinstance(one, Wait))]
        return [wait for wait in waits if wait.step_id not in gone]

    def pending(self, stored: Sequence[Approval]) -> list[Approval]:
        """The run's pending approvals, with what this unit asks and voids."""
        approvals = {one.id: one for one in stored}
        approvals |= {one.id: one for one in self.put if isinstance(one, Approval)}
        return [one for one in approvals.values() if one.state is ApprovalState.PENDING]


class Intents:
    """Writes the calls of one run's agent. Pure: chance comes in as `entropy`, 10 bytes a call."""

    def __init__(
        self,
        run: Run,
        revision: AgentRevision,
        broker: Broker,
        files: Mapping[str, Artifact],
        kept: Mapping[str, int],
    ) -> None:
        """`files`: what the run may read, by the name it knows it by. `kept`: the size of every
        blob it has put, by SHA-256. Both are looked at when a call is written."""
        self._run = run
        self._revision = revision
        self._broker = broker
        self._files = files
        self._kept = kept

    def begin(self, batch: Batch, intent: Intent, stage: int, entropy: bytes, now_us: int) -> None:
        """Record that a call was asked, and what follows from it at once."""
        started = StepStarted(
            kind=StepKind(intent.kind),
            name=intent.name,
            digest=intent.digest,
            stage=stage,
            request_json=intent.request_json,
            cancelled=intent.cancelled,
        )
        batch.events.append(NewEvent(self._run.id, started, intent.id))
        if intent.cancelled:
            batch.events.append(NewEvent(self._run.id, StepCancelled(), intent.id))
            return
        request = json.loads(intent.request_json)
        match intent.kind:
            case "STEP":
                pass
            case "TOOL":
                self._tool(batch, intent.id, request, attempt=1)
            case "APPROVAL":
                asked = _Asked(ApprovalKind.PLAN, request["title"], request.get("body", ""))
                asked.evidence_json = json.dumps(request.get("evidence"))
                self._ask(batch, intent.id, StepKind.APPROVAL, asked, entropy, now_us)
            case "QUESTION":
                asked = _Asked(ApprovalKind.QUESTION, request["question"], "")
                asked.schema_json = json.dumps(request.get("schema") or {})
                self._ask(batch, intent.id, StepKind.QUESTION, asked, entropy, now_us)
            case "TIMER":
                batch.put.append(
                    Wait(
                        run_id=self._run.id,
                        step_id=intent.id,
                        kind=StepKind.TIMER,
                        since_us=now_us,
                        until_us=int(request["due_us"]),
                    )
                )
            case "ARTIFACT_READ":
                self._read_artifact(batch, intent.id, request["name"])
            case "ARTIFACT_SAVE":
                self._save_artifact(batch, intent.id, request, entropy, now_us)
            case _:
                error = StepError(
                    type="AgentCallError", message=f"this service has no {intent.kind} calls"
                )
                self._finish(batch, intent.id, StepFinished(error=error))

    def reopen(
        self,
        batch: Batch,
        again: Reopened,
        kind: str,
        request_json: str,
        entropy: bytes,
        now_us: int,
    ) -> bool:
        """A call whose outcome is unknown is asked again: repeat it, or let a person decide.

        True when the copy must not run it itself."""
        if kind == "STEP" and again.once:
            self._ask_outcome(batch, again, StepKind.STEP, entropy, now_us)
            return True
        if kind == "TOOL":
            request = json.loads(request_json)
            if not self._may_repeat(again.step_id, request):
                self._ask_outcome(batch, again, StepKind.TOOL, entropy, now_us)
                return True
            self._restart(batch, again)
            self._tool(batch, again.step_id, request, attempt=again.attempt)
        elif kind == "STEP":
            self._restart(batch, again)
        return False

    def retry(self, batch: Batch, again: Reopened, kind: str, request_json: str) -> None:
        """A person said that it may be tried again."""
        self._restart(batch, again)
        if kind == "TOOL":
            self._tool(batch, again.step_id, json.loads(request_json), attempt=again.attempt)

    def _restart(self, batch: Batch, again: Reopened) -> None:
        restarted = StepRestarted(attempt=again.attempt)
        batch.events.append(NewEvent(self._run.id, restarted, again.step_id))

    def _permit(self, step_id: str, request: dict[str, Any]) -> Permit:
        arguments_json = json.dumps(
            request["arguments"], ensure_ascii=False, separators=(",", ":"), sort_keys=True
        )
        return self._broker.permit(
            self._revision, self._run.id, step_id, request["tool"], arguments_json
        )

    def _may_repeat(self, step_id: str, request: dict[str, Any]) -> bool:
        try:
            return self._permit(step_id, request).may_repeat
        except ToolError:
            return True  # it will be refused, and recorded as such

    def _tool(self, batch: Batch, step_id: str, request: dict[str, Any], attempt: int) -> None:
        try:
            permit = self._permit(step_id, request)
        except ToolError as refusal:
            error = StepError(type=refusal.type, message=refusal.message)
            finished = ToolCallFinished(call_id=step_id, tool=request["tool"], error=error)
            batch.events.append(NewEvent(self._run.id, finished, step_id))
            return
        batch.permits[step_id] = permit
        started = ToolCallStarted(
            call_id=step_id,
            tool=permit.tool,
            arguments_sha256=permit.arguments_sha256,
            idempotency_key=permit.idempotency_key,
            attempt=attempt,
        )
        batch.events.append(NewEvent(self._run.id, started, step_id))

    def _ask_outcome(
        self, batch: Batch, again: Reopened, kind: StepKind, entropy: bytes, now_us: int
    ) -> None:
        asked = _Asked(
            ApprovalKind.UNKNOWN_OUTCOME,
            f"Did {again.step_id} happen?",
            "The worker was lost after this call was sent and before its result was recorded. "
            "**Answer** with its result if it happened, **approve** to try it again, **reject** to "
            "let it fail.",
        )
        self._ask(batch, again.step_id, kind, asked, entropy, now_us)

    def _ask(
        self, batch: Batch, step_id: str, kind: StepKind, asked: _Asked, entropy: bytes, now_us: int
    ) -> None:
        run = self._run
        expire_us = now_us + int(self._revision.limits.approval_seconds * 1_000_000)
        approval = Approval(
            id=make_id("apr", now_us, entropy),
            tenant=run.tenant,
            run_id=run.id,
            root_id=run.root_id,
            step_id=step_id,
            agent_id=run.agent_id,
            starter=run.starter,
            approvers=self._revision.approvers,
            kind=asked.kind,
            title=asked.title,
            body=asked.body,
            body_sha256=body_digest(
                asked.kind, asked.title, asked.body, asked.evidence_json, asked.schema_json
            ),
            evidence_json=asked.evidence_json,
            answer_schema_json=asked.schema_json,
            requested_by=run.agent_name,
            create_us=now_us,
            expire_us=expire_us,
        )
        wait = Wait(
            run_id=run.id,
            step_id=step_id,
            kind=kind,
            since_us=now_us,
            until_us=expire_us,
            approval_id=approval.id,
        )
        batch.put += [approval, wait]
        requested = ApprovalRequested(
            approval_id=approval.id,
            kind=approval.kind,
            title=approval.title,
            body_sha256=approval.body_sha256,
            expire_us=expire_us,
        )
        batch.events.append(NewEvent(run.id, requested, step_id))

    def _read_artifact(self, batch: Batch, step_id: str, name: str) -> None:
        artifact = self._files.get(name)
        if artifact is None:
            error = StepError(type="StepFailed", message=f"the run has no file {name!r}")
            self._finish(batch, step_id, StepFinished(error=error))
            return
        described = {
            "artifact_id": artifact.id,
            "name": name,
            "media_type": artifact.media_type,
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
        }
        self._finish(batch, step_id, StepFinished(result_json=json.dumps(described)))

    def _save_artifact(
        self, batch: Batch, step_id: str, request: dict[str, Any], entropy: bytes, now_us: int
    ) -> None:
        run = self._run
        if request["sha256"] not in self._kept:
            error = StepError(type="StepFailed", message="the file's bytes were not handed over")
            self._finish(batch, step_id, StepFinished(error=error))
            return
        artifact = Artifact(
            id=make_id("art", now_us, entropy),
            tenant=run.tenant,
            owner=run.starter,
            run_id=run.id,
            step_id=step_id,
            name=request["name"],
            media_type=request["media_type"],
            size_bytes=self._kept[request["sha256"]],
            sha256=request["sha256"],
            create_us=now_us,
        )
        batch.put.append(artifact)
        saved = ArtifactSaved(
            artifact_id=artifact.id,
            name=artifact.name,
            media_type=artifact.media_type,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
        )
        batch.events.append(NewEvent(run.id, saved, step_id))

    def _finish(self, batch: Batch, step_id: str, finished: StepFinished) -> None:
        batch.events.append(NewEvent(self._run.id, finished, step_id))


def is_once(intent: Intent) -> bool:
    """Whether it is a step whose author forbids to run it again when its outcome is unknown."""
    return intent.kind == "STEP" and json.loads(intent.request_json).get("once", False) is True


@dataclass(slots=True)
class _Asked:
    kind: ApprovalKind
    title: str
    body: str
    evidence_json: str = "null"
    schema_json: str = ""
