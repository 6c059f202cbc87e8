"""CompleteOperation and its readers: what finishes outside comes back once, whenever it comes."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onbelay_server.app.credentials import token_digest
from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.operation_token import OperationTokens, bearer_of
from onbelay_server.app.schema import check_value
from onbelay_server.app.visibility import seen
from onbelay_server.domain.change import Change, Entity, NewEvent, Reads, Rows
from onbelay_server.domain.error import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
)
from onbelay_server.domain.event import OperationCompleted
from onbelay_server.domain.operation import Operation, OperationOutcome, OperationState, completed
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.domain.run import Wait
from onbelay_server.domain.waiting import resolved
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import OperationFilter, Place, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What CompleteOperation asks for."""

    operation_id: str
    outcome: OperationOutcome
    token: str = ""
    idempotency: Idempotency | None = None


class Operations:
    """Completes and shows operations."""

    def __init__(self, store: Store, tokens: OperationTokens, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tokens = tokens

    async def complete(self, caller: Principal, order: Completion) -> Operation:
        """Complete an operation, before its wait was registered or after; the same outcome again
        is harmless.

        Raises NotFound; PermissionDenied (SCOPE_MISSING, OPERATION_TOKEN_INVALID);
        InvalidArgument (ANSWER_MISMATCH: the result does not fit the schema);
        FailedPrecondition (OPERATION_CLOSED)."""
        operation_id = order.operation_id
        operation = await self._store.operation(operation_id)
        if operation is None or operation.tenant != caller.tenant:
            raise _unknown()
        by = self._entitled(caller, operation, order.token)
        if order.outcome.result_json is not None:
            schema_json, result_json = operation.result_schema_json, order.outcome.result_json
            await check_value(schema_json, result_json, "result", reason="ANSWER_MISMATCH")

        def complete(rows: Rows, now_us: int) -> Change[Operation]:
            current = rows.operation(operation_id)
            if current is None:
                raise _unknown()
            if order.idempotency is not None and order.idempotency.answered(rows) is not None:
                return Change(result=current)
            after = completed(current, order.outcome, by, now_us)
            if after is None:
                return Change(result=current)
            return self._written(rows, after, order, now_us)

        reads = Reads(
            runs=[operation.run_id],
            open_of=[operation.run_id],
            operations=[operation_id],
            requests=keys_of(order.idempotency),
        )
        return (await self._store.write(reads, complete)).result

    def _written(
        self, rows: Rows, operation: Operation, order: Completion, now_us: int
    ) -> Change[Operation]:
        run = rows.run(operation.run_id)
        if run is None or run.state.is_final:
            raise FailedPrecondition(
                "the operation's run has ended",
                reason="OPERATION_CLOSED",
                metadata={"state": OperationState.VOIDED.value},
            )
        wait = next((w for w in rows.waits(run.id) if w.operation_id == operation.id), None)
        event = OperationCompleted(
            operation_id=operation.id,
            result_json=operation.result_json,
            error=operation.error,
            completed_by=operation.completed_by,
        )
        events = [NewEvent(run.id, event, wait.step_id if wait is not None else "")]
        put: list[Entity] = [operation]
        delete: list[Wait] = []
        if wait is not None:
            after, moves = resolved(run, now_us, "an operation was completed")
            put.append(after)
            events += moves
            delete.append(wait)
        if order.idempotency is not None:
            put.append(order.idempotency.remembered(operation.id, now_us))
        return Change(result=operation, put=put, delete=delete, events=events)

    def _entitled(self, caller: Principal, operation: Operation, token: str) -> str:
        """By whom it is completed; empty when by its own token. Who holds no token and may not see
        the run learns nothing, whatever their scopes are."""
        if caller.id == bearer_of(operation.id):
            return ""
        if token and self._is_its_token(operation, token):
            return ""
        viewer, starter = caller.viewer, operation.starter
        if not viewer.sees(
            tenant=operation.tenant, starter=starter, agent_owner=operation.agent_owner
        ):
            raise _unknown()
        if token:
            raise PermissionDenied(
                "the token is not that of this operation", reason="OPERATION_TOKEN_INVALID"
            )
        if Scope.OPERATIONS_COMPLETE not in caller.scopes:
            raise PermissionDenied("operations:complete or the operation's token is needed")
        if not viewer.controls(tenant=operation.tenant, starter=starter):
            raise PermissionDenied("only the run's starter and the tenant's admin may do this")
        return caller.id

    def _is_its_token(self, operation: Operation, token: str) -> bool:
        is_ours = self._tokens.read(token) == (operation.id, operation.tenant)
        return is_ours and hmac.compare_digest(token_digest(token), operation.token_sha256)

    async def get(self, caller: Principal, operation_id: str) -> Operation:
        """One operation of a run the caller sees. Raises NotFound."""
        operation = await self._store.operation(operation_id)
        if operation is None or operation.tenant != caller.tenant:
            raise _unknown()
        try:
            seen(await self._store.run(operation.run_id), caller)
        except NotFound:
            raise _unknown() from None
        return self._shown(operation)

    async def list(
        self, caller: Principal, which: OperationFilter, *, after: Place | None, limit: int
    ) -> Sequence[Operation]:
        """Operations of runs the caller sees, newest first."""
        found = await self._store.list_operations(caller.viewer, which, after=after, limit=limit)
        return [self._shown(operation) for operation in found]

    def _shown(self, operation: Operation) -> Operation:
        """One that nobody awaits expires by the clock alone."""
        is_late = operation.expire_us is not None and operation.expire_us <= self._clock.now_us()
        if operation.state is OperationState.OPEN and is_late:
            return replace(operation, state=OperationState.EXPIRED)
        return operation


def _unknown() -> NotFound:
    return NotFound("no such operation", metadata={"resource": "operation"})
