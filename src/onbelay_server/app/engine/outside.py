"""What comes from outside a run: operations that finish elsewhere, and messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onbelay_server.app.credentials import token_digest
from onbelay_server.app.engine.batch import Batch
from onbelay_server.app.engine.failures import operation_expired, operation_failure, step_error
from onbelay_server.app.operation_token import OperationTokens
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.change import Rows
from onbelay_server.domain.event import MessageRead, OperationStarted, StepError, StepFinished
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.operation import Operation, OperationState
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import StepKind
from onbelay_server.domain.waiting import LAST_US

MAX_TAKEN = 100
"""Messages that one call takes."""


class Outside:
    """Opens operations and takes messages for one run."""

    def __init__(self, run: Run, revision: AgentRevision, tokens: OperationTokens) -> None:
        self._run = run
        self._longest_us = int(revision.limits.wait_seconds * 1_000_000)
        self._tokens = tokens

    def open_operation(
        self,
        batch: Batch,
        step_id: str,
        request: Mapping[str, Any],
        entropy: bytes,
        now_us: int,
    ) -> None:
        """`ctx.operation`: it exists, with a token of its own, before anything is sent."""
        run = self._run
        seconds = request.get("expires_seconds")
        schema = request.get("schema")
        operation_id = make_id("op", now_us, entropy)
        operation = Operation(
            id=operation_id,
            tenant=run.tenant,
            run_id=run.id,
            root_id=run.root_id,
            starter=run.starter,
            agent_owner=run.agent_owner,
            step_id=step_id,
            name=request["name"],
            result_schema_json=json.dumps(schema) if schema else "",
            token_sha256=token_digest(self._tokens.token(operation_id, run.tenant)),
            create_us=now_us,
            expire_us=None if seconds is None else min(now_us + int(seconds * 1_000_000), LAST_US),
        )
        batch.put.append(operation)
        started = OperationStarted(
            operation_id=operation.id, name=operation.name, expire_us=operation.expire_us
        )
        batch.add(started, step_id)

    def await_operation(
        self, batch: Batch, step_id: str, operation_id: str, rows: Rows, now_us: int
    ) -> None:
        """Its outcome, if it has one already; a wait for it otherwise."""
        operation = rows.operation(operation_id)
        if operation is None or operation.run_id != self._run.id:
            error = StepError(type="OperationFailed", message="that is no operation of this run")
            batch.add(StepFinished(error=error), step_id)
            return
        match operation.state:
            case OperationState.SUCCEEDED:
                batch.add(StepFinished(result_json=operation.result_json or "null"), step_id)
            case OperationState.FAILED if operation.error is not None:
                error = step_error(operation_failure(operation.id, operation.error))
                batch.add(StepFinished(error=error), step_id)
            case OperationState.OPEN:
                longest_us = now_us + self._longest_us
                batch.put.append(
                    Wait(
                        run_id=self._run.id,
                        step_id=step_id,
                        kind=StepKind.OPERATION,
                        since_us=now_us,
                        until_us=min(operation.expire_us or longest_us, longest_us),
                        operation_id=operation.id,
                    )
                )
            case _:
                error = step_error(operation_expired(operation.id))
                batch.add(StepFinished(error=error), step_id)

    def messages(
        self, batch: Batch, step_id: str, request: Mapping[str, Any], rows: Rows, now_us: int
    ) -> None:
        """`ctx.messages`: what was said and not taken yet; a wait for it when it may wait."""
        unread = sorted(rows.unread(self._run.id), key=lambda message: message.number)
        taken = unread[:MAX_TAKEN]
        if taken or not request.get("wait", True):
            batch.delete += taken
            batch.add(MessageRead(message_ids=tuple(one.id for one in taken)), step_id)
            return
        batch.put.append(
            Wait(
                run_id=self._run.id,
                step_id=step_id,
                kind=StepKind.MESSAGES,
                since_us=now_us,
                until_us=now_us + self._longest_us,
            )
        )
