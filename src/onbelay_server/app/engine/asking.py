"""Approvals and questions that an agent's calls come to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from onbelay_agent.protocol import Reopened
from onbelay_server.app.engine.batch import Batch
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.approval import Approval, body_digest
from onbelay_server.domain.event import ApprovalRequested
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import ApprovalKind, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    kind: ApprovalKind
    title: str
    body: str = ""
    evidence_json: str = "null"
    schema_json: str = ""


class Asking:
    """Asks people, in the name of one run."""

    def __init__(self, run: Run, revision: AgentRevision) -> None:
        self._run = run
        self._revision = revision

    def approval(
        self, batch: Batch, step_id: str, request: dict[str, Any], entropy: bytes, now_us: int
    ) -> None:
        """`ctx.approve`: a person's yes."""
        asked = _Asked(
            kind=ApprovalKind.PLAN,
            title=request["title"],
            body=request.get("body", ""),
            evidence_json=json.dumps(request.get("evidence")),
        )
        self._ask(batch, step_id, StepKind.APPROVAL, asked, entropy, now_us)

    def question(
        self, batch: Batch, step_id: str, request: dict[str, Any], entropy: bytes, now_us: int
    ) -> None:
        """`ctx.ask`: a person's answer."""
        asked = _Asked(
            kind=ApprovalKind.QUESTION,
            title=request["question"],
            schema_json=json.dumps(request.get("schema") or {}),
        )
        self._ask(batch, step_id, StepKind.QUESTION, asked, entropy, now_us)

    def outcome(
        self, batch: Batch, again: Reopened, kind: StepKind, entropy: bytes, now_us: int
    ) -> None:
        """An effect was sent and its result was not recorded: only a person can know."""
        asked = _Asked(
            kind=ApprovalKind.UNKNOWN_OUTCOME,
            title=f"Did {again.step_id} happen?",
            body=(
                "The worker was lost after this call was sent and before its result was recorded. "
                "**Answer** with its result if it happened, **approve** to try it again, "
                "**reject** to let it fail."
            ),
        )
        self._ask(batch, again.step_id, kind, asked, entropy, now_us)

    def _ask(
        self,
        batch: Batch,
        step_id: str,
        kind: StepKind,
        asked: _Asked,
        entropy: bytes,
        now_us: int,
    ) -> None:
        run, limits = self._run, self._revision.limits
        patience_seconds = min(limits.approval_seconds, limits.wait_seconds)
        expire_us = now_us + int(patience_seconds * 1_000_000)
        digest = body_digest(
            asked.kind, asked.title, asked.body, asked.evidence_json, asked.schema_json
        )
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
            body_sha256=digest,
            evidence_json=asked.evidence_json,
            answer_schema_json=asked.schema_json,
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
            body_sha256=digest,
            expire_us=expire_us,
        )
        batch.add(requested, step_id)
