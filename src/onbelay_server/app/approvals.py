"""What people are asked, and what they decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.schema import check_value
from onbelay_server.app.visibility import sees
from onbelay_server.domain.approval import Approval, Verdict, cannot_decide, decided
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.error import NotFound
from onbelay_server.domain.event import ApprovalDecided
from onbelay_server.domain.lifecycle import check_active
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import ApprovalState, Decision
from onbelay_server.domain.waiting import resolved
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import ApprovalFilter, Place, Store

_SCANNED_PAGES = 10
"""Pages of rows looked at for one page of what the caller may decide."""


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """An approval as one caller sees it."""

    approval: Approval
    obstacle: str
    """Why the caller may not decide it now; empty when they may."""
    now_us: int


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """A page of approvals, newest first."""

    approvals: Sequence[ApprovalView]
    after: Place | None
    """Where the next page begins; None when nothing follows."""
    now_us: int


class Approvals:
    """Approvals are seen by whoever sees their run, and by their approvers."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list_approvals(
        self,
        caller: Principal,
        which: ApprovalFilter,
        *,
        decidable_only: bool,
        after: Place | None,
        limit: int,
    ) -> ApprovalPage:
        """What the caller sees of the filter; with `decidable_only` what they may decide now."""
        now_us = self._clock.now_us()
        if decidable_only:
            if not caller.is_person or Scope.APPROVALS_DECIDE not in caller.scopes:
                return ApprovalPage((), None, now_us)
            if which.states and ApprovalState.PENDING not in which.states:
                return ApprovalPage((), None, now_us)
            which = replace(
                which,
                states=(ApprovalState.PENDING,),
                # An administrator may decide more than what names them: looked at one by one.
                decidable_by="" if caller.is_admin else caller.id,
            )
        found: list[ApprovalView] = []
        for _ in range(_SCANNED_PAGES):
            rows = await self._store.list_approvals(
                caller.viewer, which, after=after, limit=limit + 1
            )
            for row in rows[:limit]:
                after = Place(row.create_us, row.id)
                view = await self._view(row, caller, now_us)
                if not decidable_only or not view.obstacle:
                    found.append(view)
                if len(found) == limit:
                    break
            read_all = len(rows) <= limit and bool(
                not rows or after == Place(rows[-1].create_us, rows[-1].id)
            )
            if read_all or len(found) == limit:
                return ApprovalPage(found, None if read_all else after, now_us)
        return ApprovalPage(found, after, now_us)

    async def get(self, caller: Principal, approval_id: str) -> ApprovalView:
        """One approval. Raises NotFound for one the caller may not know of."""
        approval, _ = await self._seen(caller, approval_id)
        return await self._view(approval, caller, self._clock.now_us())

    async def decide(
        self, caller: Principal, approval_id: str, verdict: Verdict, idempotency: Idempotency | None
    ) -> ApprovalView:
        """Decide, durably: the run goes on from here. Saying the same again changes nothing.

        Raises NotFound for an approval the caller may not know of, PermissionDenied for one they
        see but may not decide, InvalidArgument (ANSWER_MISMATCH) for an answer outside its schema,
        FailedPrecondition as `domain.approval.decided` does and RUN_NOT_ACTIVE.
        """
        approval, run = await self._seen(caller, approval_id)
        if refusal := cannot_decide(approval, caller):
            raise refusal
        if verdict.decision is Decision.ANSWER:
            schema_json, answer_json = approval.answer_schema_json, verdict.answer_json
            await check_value(schema_json, answer_json, "answer_json", reason="ANSWER_MISMATCH")

        def unit(rows: Rows, now_us: int) -> Change[Approval]:
            current = rows.approval(approval_id)
            owner = rows.run(run.id)
            if current is None or owner is None:
                raise _unknown()
            if idempotency and idempotency.answered(rows):
                return Change(result=current)
            return _decided(current, owner, verdict, caller, rows, now_us, idempotency)

        reads = Reads(
            runs=[run.id],
            open_of=[run.id],
            approvals=[approval_id],
            requests=keys_of(idempotency),
        )
        committed = await self._store.write(reads, unit)
        return await self._view(committed.result, caller, committed.now_us)

    async def _seen(self, caller: Principal, approval_id: str) -> tuple[Approval, Run]:
        approval = await self._store.approval(approval_id)
        if approval is None or approval.tenant != caller.tenant:
            raise _unknown()
        run = await self._store.run(approval.run_id)
        if run is None:
            raise _unknown()
        if not sees(caller, run) and caller.id not in approval.approvers:
            raise _unknown()
        return approval, run

    async def _view(self, approval: Approval, caller: Principal, now_us: int) -> ApprovalView:
        return ApprovalView(approval, await self._obstacle(approval, caller, now_us), now_us)

    async def _obstacle(self, approval: Approval, caller: Principal, now_us: int) -> str:
        if approval.state is not ApprovalState.PENDING:
            return f"it is {approval.state.value.lower()}"
        if refusal := cannot_decide(approval, caller):
            return refusal.text
        if approval.expire_us is not None and now_us >= approval.expire_us:
            return "it has expired"
        run = await self._store.run(approval.run_id)
        if run is None or not run.state.is_active:
            return "its run is not active"
        return ""


def _decided(
    approval: Approval,
    run: Run,
    verdict: Verdict,
    caller: Principal,
    rows: Rows,
    now_us: int,
    idempotency: Idempotency | None,
) -> Change[Approval]:
    undecided = (ApprovalState.PENDING, ApprovalState.VOIDED)
    if approval.state in undecided:
        check_active(run)
    remembered = [idempotency.remembered(approval.id, now_us)] if idempotency else []
    after = decided(approval, verdict, caller, now_us)
    if after is None:
        return Change(result=approval, put=remembered)
    said = ApprovalDecided(
        approval_id=approval.id,
        decision=verdict.decision,
        decided_by=caller.id,
        comment=verdict.comment,
        answer_json=verdict.answer_json,
        effective_us=now_us if verdict.decision is Decision.APPROVE else None,
    )
    waits = [wait for wait in rows.waits(run.id) if wait.approval_id == approval.id]
    moved, moves = resolved(run, now_us, "an approval was decided")
    return Change(
        result=after,
        put=[moved, after, *remembered],
        delete=waits,
        events=[NewEvent(run.id, said, approval.step_id), *moves],
    )


def _unknown() -> NotFound:
    return NotFound("no such approval", metadata={"resource": "approval"})
