"""SendMessage: what is said to a run reaches its agent once, in order."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from onbelay_server.app.idempotency import Idempotency, keys_of
from onbelay_server.app.visibility import controlled
from onbelay_server.domain.change import Change, Entity, NewEvent, Reads, Rows
from onbelay_server.domain.error import FailedPrecondition, ResourceExhausted
from onbelay_server.domain.event import MessageRead, MessageReceived
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.lifecycle import check_active
from onbelay_server.domain.message import Message
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import StepKind
from onbelay_server.domain.waiting import resolved
from onbelay_server.ports.store import Store

MAX_UNREAD = 1_000
"""Messages a run may have that its agent has not taken."""


class Messages:
    """Keeps messages until the agent takes them."""

    def __init__(self, store: Store, entropy: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._store = store
        self._entropy = entropy

    async def send(
        self,
        caller: Principal,
        run_id: str,
        *,
        text: str,
        data_json: str,
        idempotency: Idempotency | None = None,
    ) -> tuple[Run, str]:
        """Say something to a run; the run and the message's id.

        Raises NotFound; FailedPrecondition: MESSAGES_NOT_ACCEPTED, RUN_NOT_ACTIVE;
        ResourceExhausted when 1,000 are unread."""
        run = controlled(await self._store.run(run_id), caller)
        revision = await self._store.revision(run.agent_id, run.agent_revision)
        if revision is None or not revision.accepts_messages:
            raise FailedPrecondition(
                "the run's agent takes no messages", reason="MESSAGES_NOT_ACCEPTED"
            )
        entropy = self._entropy(10)

        def send(rows: Rows, now_us: int) -> Change[str]:
            current = controlled(rows.run(run_id), caller)
            earlier = idempotency.answered(rows) if idempotency is not None else None
            if earlier is not None:
                return Change(result=earlier)
            check_active(current)
            if len(rows.unread(run_id)) >= MAX_UNREAD:
                raise ResourceExhausted(
                    f"{MAX_UNREAD} messages wait to be read",
                    metadata={"quota": "unread_messages", "limit": str(MAX_UNREAD)},
                )
            message = Message(
                id=make_id("msg", now_us, entropy), run_id=run_id, number=current.message_count + 1
            )
            received = MessageReceived(
                message_id=message.id, sent_by=caller.id, text=text, data_json=data_json
            )
            after = replace(current, message_count=message.number, update_us=now_us)
            events = [NewEvent(run_id, received)]
            put: list[Entity] = []
            delete: list[Wait] = []
            wait = next((w for w in rows.waits(run_id) if w.kind is StepKind.MESSAGES), None)
            if wait is None:
                put.append(message)
            else:
                events.append(
                    NewEvent(run_id, MessageRead(message_ids=(message.id,)), wait.step_id)
                )
                after, moves = resolved(after, now_us, "a message came")
                events += moves
                delete.append(wait)
            put.append(after)
            if idempotency is not None:
                put.append(idempotency.remembered(message.id, now_us))
            return Change(result=message.id, put=put, delete=delete, events=events)

        reads = Reads(
            runs=[run_id],
            open_of=[run_id],
            requests=keys_of(idempotency),
        )
        committed = await self._store.write(reads, send)
        appended = committed.runs.get(run_id)
        return (run if appended is None else appended.run), committed.result
