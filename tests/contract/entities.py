"""Rows to put into a store, with everything a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from onbelay_server.domain.agent import Agent, AgentRevision, AgentSource
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, Decide, Entity, NewEvent, Reads, Rows
from onbelay_server.domain.event import LogWritten
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import ApprovalKind, LogLevel, StepKind
from onbelay_server.ports.store import Committed, Store

T0 = 1_790_000_000_000_000


def make_run(run_id: str, **fields: Any) -> Run:
    values: dict[str, Any] = {
        "id": run_id,
        "tenant": "acme",
        "starter": "user:ada",
        "root_id": run_id,
        "agent_id": "agt_1",
        "agent_name": "greeter",
        "agent_revision": 1,
        "agent_owner": "user:owner",
        "input_json": '{"n":1}',
        "ready_us": T0,
        "create_us": T0,
        "update_us": T0,
    }
    return Run(**(values | fields))


def make_wait(run_id: str, step_id: str, **fields: Any) -> Wait:
    values: dict[str, Any] = {"kind": StepKind.TIMER, "since_us": T0}
    return Wait(run_id=run_id, step_id=step_id, **(values | fields))


def make_approval(approval_id: str, run: Run, **fields: Any) -> Approval:
    values: dict[str, Any] = {
        "id": approval_id,
        "tenant": run.tenant,
        "run_id": run.id,
        "root_id": run.root_id,
        "step_id": "step",
        "agent_id": run.agent_id,
        "starter": run.starter,
        "approvers": (),
        "kind": ApprovalKind.PLAN,
        "title": "May I?",
        "body": "please",
        "body_sha256": "0" * 64,
        "create_us": run.create_us,
        "expire_us": None,
    }
    return Approval(**(values | fields))


def make_operation(operation_id: str, run: Run, **fields: Any) -> Operation:
    values: dict[str, Any] = {
        "tenant": run.tenant,
        "run_id": run.id,
        "root_id": run.root_id,
        "starter": run.starter,
        "agent_owner": run.agent_owner,
        "step_id": "step",
        "name": "export",
        "token_sha256": "c" * 64,
        "create_us": run.create_us,
    }
    return Operation(id=operation_id, **(values | fields))


def make_message(run_id: str, number: int) -> Message:
    return Message(id=f"msg_{run_id}_{number}", run_id=run_id, number=number)


def make_artifact(artifact_id: str, run_id: str | None, **fields: Any) -> Artifact:
    values: dict[str, Any] = {
        "tenant": "acme",
        "owner": "user:ada",
        "name": f"{artifact_id}.txt",
        "media_type": "text/plain",
        "size_bytes": 3,
        "sha256": "a" * 64,
        "create_us": T0,
    }
    return Artifact(id=artifact_id, run_id=run_id, **(values | fields))


def make_agent(agent_id: str, name: str, **fields: Any) -> Agent:
    values: dict[str, Any] = {
        "tenant": "acme",
        "owner": "user:owner",
        "source": AgentSource.API,
        "revision": 1,
        "etag": "e1",
        "create_us": T0,
        "update_us": T0,
    }
    return Agent(id=agent_id, name=name, **(values | fields))


def make_revision(agent_id: str, revision: int, **fields: Any) -> AgentRevision:
    values: dict[str, Any] = {"create_us": T0, "created_by": "user:owner"}
    return AgentRevision(agent_id=agent_id, revision=revision, **(values | fields))


def make_request(request_id: str, result_id: str, **fields: Any) -> Request:
    key = RequestKey("acme", "user:ada", "StartRun", request_id)
    values: dict[str, Any] = {"body_sha256": "b" * 64, "create_us": T0}
    return Request(key=key, result_id=result_id, **(values | fields))


def line(run_id: str, message: str = "hello") -> NewEvent:
    """An event of a run."""
    return NewEvent(run_id, LogWritten(level=LogLevel.INFO, message=message))


ADA = Viewer(tenant="acme", principal="user:ada", is_admin=False)
ADMIN = Viewer(tenant="acme", principal="user:root", is_admin=True)
STRANGER = Viewer(tenant="acme", principal="user:eve", is_admin=False)
FOREIGN_ADMIN = Viewer(tenant="other", principal="user:ada", is_admin=True)


async def put(store: Store, *rows: Entity) -> None:
    """Write rows as they are, whatever they are."""
    await store.write(Reads(), lambda _rows, _now_us: Change(result=None, put=rows))


async def start(store: Store, *runs: Run) -> None:
    """New runs, each with its first event."""

    def decide(_rows: Rows, _now_us: int) -> Change[None]:
        return Change(result=None, put=runs, events=[line(run.id, "started") for run in runs])

    await store.write(Reads(), decide)


def appending(run_id: str, message: str = "hello", count: int = 1) -> tuple[Reads, Decide[None]]:
    """What appends events to a run."""

    def decide(rows: Rows, _now_us: int) -> Change[None]:
        assert rows.run(run_id) is not None
        return Change(result=None, events=[line(run_id, message)] * count)

    return Reads(runs=[run_id]), decide


async def append(
    store: Store, run_id: str, message: str = "hello", count: int = 1
) -> Committed[None]:
    reads, decide = appending(run_id, message, count)
    return await store.write(reads, decide)


async def whole_log(store: Store, run_id: str) -> list[int]:
    """The sequences of a run's log, read page by page."""
    sequences: list[int] = []
    while page := await store.events(
        run_id, after=sequences[-1] if sequences else 0, limit=100, max_bytes=1_000_000
    ):
        sequences += [event.sequence for event in page]
    return sequences
