"""StartRun: a run is durable before the answer leaves."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from onbelay_server.app.agent_rules import hindrance
from onbelay_server.app.agents import Agents, AgentView
from onbelay_server.app.engine.dispatcher import Slot
from onbelay_server.app.idempotency import Idempotency
from onbelay_server.app.schema import check_value
from onbelay_server.app.visibility import seen, sees_file
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, Decide, Reads, Rows
from onbelay_server.domain.error import (
    DomainError,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
)
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.lifecycle import claimed, launched
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.revising import unknown_agent
from onbelay_server.domain.run import Run
from onbelay_server.ports.catalog import Catalog
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import Store
from onbelay_server.ports.tools import Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOrder:
    """What StartRun asks for. None: not given, which with `rerun_of` means as there."""

    agent: str = ""
    """Id or name; empty with `rerun_of`."""
    agent_revision: int | None = None
    input_json: str | None = None
    input_artifacts: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    title: str | None = None
    rerun_of: str = ""
    not_before_us: int | None = None
    idempotency: Idempotency


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run, and whether an earlier call with this request_id made it."""

    run: Run
    already_started: bool


class Starts:
    """Starts runs."""

    def __init__(
        self,
        store: Store,
        agents: Agents,
        catalog: Catalog,
        tools: Tools,
        clock: Clock,
        reserve: Callable[[], Slot | None],
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`reserve` gives a slot of this process, where a run may begin at once."""
        self._reserve = reserve
        self._store = store
        self._agents = agents
        self._catalog = catalog
        self._tools = tools
        self._clock = clock
        self._entropy = entropy

    async def start(self, caller: Principal, order: StartOrder) -> Started:
        """Start a run, once for all calls with this request_id.

        Raises NotFound (agent, revision, rerun_of, an input artifact), PermissionDenied (the agent
        is not for this caller), FailedPrecondition (AGENT_NOT_STARTABLE: this server cannot run
        it), InvalidArgument (the input does not fit the agent's schema: INPUT_MISMATCH;
        REQUEST_ID_REUSED).
        """
        try:
            return await self._start(caller, order)
        except DomainError:
            # What made the first call possible may be gone by now; its answer stands.
            earlier_id = await order.idempotency.recall(self._store)
            if earlier_id is None:
                raise
            return Started(run=await self._earlier(earlier_id), already_started=True)

    async def _start(self, caller: Principal, order: StartOrder) -> Started:
        order = await self._completed(caller, order)
        view = await self._agents.get(caller, order.agent, order.agent_revision)
        _check_allowed(view, caller)
        obstacle = hindrance(view.revision, self._catalog, self._tools)
        if obstacle is not None:
            raise FailedPrecondition(
                obstacle, reason="AGENT_NOT_STARTABLE", metadata={"problem": obstacle}
            )
        schema_json = view.revision.input_schema_json
        await check_value(schema_json, order.input_json or "{}", "input", reason="INPUT_MISMATCH")
        files = await self._files(caller, order.input_artifacts or {})
        run = self._run(caller, order, view)
        copies = [
            replace(
                file,
                id=make_id("art", run.create_us, self._entropy(10)),
                owner=run.starter,
                run_id=run.id,
                step_id="",
                name=name,
                create_us=run.create_us,
                expire_us=None,
            )
            for name, file in files.items()
        ]
        run = replace(run, input_artifacts={copy.name: copy.id for copy in copies})
        digest = hashlib.sha256(run.input_json.encode()).hexdigest()

        slot = self._reserve() if _ready(order, run.create_us) == run.create_us else None

        def start(rows: Rows, now_us: int) -> Change[Started]:
            earlier_id = order.idempotency.answered(rows)
            if earlier_id is not None:
                return Change(result=Started(run=replace(run, id=earlier_id), already_started=True))
            agent = rows.agent(view.agent.id)
            if agent is None or agent.delete_us is not None:
                raise unknown_agent()
            new = replace(run, create_us=now_us, update_us=now_us, ready_us=_ready(order, now_us))
            events = [launched(new, digest)]
            if slot is not None:
                new, claim = claimed(new, slot.owner, now_us + slot.lease_us, now_us)
                events.append(claim)
            remembered = order.idempotency.remembered(new.id, now_us)
            return Change(
                result=Started(run=new, already_started=False),
                put=[new, remembered, *copies],
                events=events,
            )

        reads = Reads(runs=[run.id], agents=[view.agent.id], requests=[order.idempotency.key])
        # Not the caller's to cancel: what is committed as claimed must be driven.
        started = await asyncio.shield(asyncio.ensure_future(self._commit(reads, start, slot)))
        if not started.already_started:
            return started
        return replace(started, run=await self._earlier(started.run.id))

    async def _commit(self, reads: Reads, start: Decide[Started], slot: Slot | None) -> Started:
        try:
            committed = await self._store.write(reads, start)
            started = committed.result
            if not started.already_started:
                started = replace(started, run=committed.runs[started.run.id].run)
                if slot is not None:
                    slot.drive(started.run)
            return started
        finally:
            if slot is not None:
                slot.release()

    async def _earlier(self, run_id: str) -> Run:
        run = await self._store.run(run_id)
        if run is None:
            raise NotFound("the run this request started was deleted", metadata={"resource": "run"})
        return run

    def _run(self, caller: Principal, order: StartOrder, view: AgentView) -> Run:
        now_us = self._clock.now_us()
        run_id = make_id("run", now_us, self._entropy(10))
        return Run(
            id=run_id,
            tenant=caller.tenant,
            starter=caller.id,
            root_id=run_id,
            agent_id=view.agent.id,
            agent_name=view.agent.name,
            agent_revision=view.revision.revision,
            agent_owner=view.agent.owner,
            title=order.title or "",
            labels=dict(order.labels or {}),
            rerun_of=order.rerun_of,
            input_json=order.input_json if order.input_json is not None else "{}",
            ready_us=_ready(order, now_us),
            create_us=now_us,
            update_us=now_us,
        )

    async def _completed(self, caller: Principal, order: StartOrder) -> StartOrder:
        """The order with what it leaves out taken from the run it repeats."""
        if not order.rerun_of:
            return order
        old = seen(await self._store.run(order.rerun_of), caller)
        same_agent = not order.agent or order.agent in (old.agent_id, old.agent_name)
        return replace(
            order,
            agent=order.agent or old.agent_id,
            agent_revision=order.agent_revision or (old.agent_revision if same_agent else None),
            input_json=old.input_json if order.input_json is None else order.input_json,
            input_artifacts=(
                old.input_artifacts if order.input_artifacts is None else order.input_artifacts
            ),
            labels=old.labels if order.labels is None else order.labels,
            title=old.title if order.title is None else order.title,
        )

    async def _files(
        self, caller: Principal, artifact_ids: Mapping[str, str]
    ) -> dict[str, Artifact]:
        """The input files, each one that the caller may read."""
        files = {}
        for name, artifact_id in artifact_ids.items():
            artifact = await self._store.artifact(artifact_id)
            if artifact is None or not await self._may_read(caller, artifact):
                raise NotFound(
                    f"no such artifact: {artifact_id}",
                    metadata={"resource": "artifact", "name": name},
                )
            files[name] = artifact
        return files

    async def _may_read(self, caller: Principal, artifact: Artifact) -> bool:
        run = await self._store.run(artifact.run_id) if artifact.run_id is not None else None
        return sees_file(caller, artifact, run, self._clock.now_us())


def _ready(order: StartOrder, now_us: int) -> int:
    return max(now_us, order.not_before_us or 0)


def _check_allowed(view: AgentView, caller: Principal) -> None:
    allowed = view.revision.allowed_users
    if allowed and caller.id not in allowed and not caller.is_admin:
        raise PermissionDenied("this agent is not for you to start", reason="AGENT_NOT_ALLOWED")
