"""What tests of agents, approvals and artifacts stand on: people, code, a house in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from onbelay_server.adapters.blobs import MemoryBlobs
from onbelay_server.adapters.catalog import CodeCatalog
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.memory import MemoryStore
from onbelay_server.adapters.tools import RegisteredTools
from onbelay_server.app.agents import Agents
from onbelay_server.app.approvals import Approvals
from onbelay_server.app.artifacts import Artifacts
from onbelay_server.app.blueprints import Blueprints
from onbelay_server.app.registration import Registration
from onbelay_server.app.uploads import Uploads
from onbelay_server.domain.agent import HarnessKind
from onbelay_server.domain.approval import Approval, body_digest
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.lifecycle import launched
from onbelay_server.domain.principal import Principal, Scope
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import ApprovalKind, RunState, StepKind
from onbelay_server.ports.catalog import RegisteredCode
from onbelay_server.ports.store import Store
from tests.manual_clock import ManualClock

START_US = 1_700_000_000_000_000


def person(name: str, *, tenant: str = "default", scopes: Iterable[Scope] = ()) -> Principal:
    """A person who may do everything but administrate and run code, unless scopes are given."""
    usual = set(Scope) - {Scope.TENANT_ADMIN, Scope.AGENTS_RUN_CODE}
    return Principal(
        tenant=tenant, id=f"user:{name}", is_person=True, scopes=frozenset(scopes or usual)
    )


ADA, BEN = person("ada"), person("ben")
ADMIN = person("root", scopes=set(Scope))
RIVAL = person("ada", tenant="rival")
ROBOT = Principal(tenant="default", id="key:1", is_person=False, scopes=ADA.scopes)

HELLO = RegisteredCode(
    name="hello",
    description="Greets.",
    target="hello:hello",
    harness=HarnessKind.PYTHON,
    input_schema_json='{"properties":{"name":{"type":"string"}},"type":"object"}',
    fingerprint="f1",
)
TABLES = RegisteredCode(
    name="tables",
    title="Tables",
    target="pack.tables:tables",
    harness=HarnessKind.CHILD,
    is_blueprint=True,
    fingerprint="f2",
    expected_artifacts=("out.csv",),
    example_input_json="{}",
)


class House:
    """The use cases over a store in memory."""

    def __init__(self, codes: Iterable[RegisteredCode] = (HELLO, TABLES)) -> None:
        self.clock = ManualClock(START_US, tick_us=1)
        self.blobs = MemoryBlobs()
        self.store: Store = MemoryStore(codec=ProtoEventCodec(), clock=self.clock)
        self.tools = RegisteredTools()
        self._numbers = itertools.count(1)
        self.use(codes)
        self.uploads = Uploads(self.blobs, self.clock, max_open=3, max_bytes=1000)
        self.approvals = Approvals(self.store, self.clock)
        self.artifacts = Artifacts(
            self.store,
            self.blobs,
            self.uploads,
            self.clock,
            self.entropy,
        )

    def use(self, codes: Iterable[RegisteredCode]) -> None:
        """Start again with other code, on the same store."""
        self.catalog = CodeCatalog(codes)
        self.registration = Registration(self.store, self.catalog, self.clock, self.entropy)
        self.agents = Agents(
            self.store, self.catalog, self.tools, self.registration, self.clock, self.entropy
        )
        self.blueprints = Blueprints(self.catalog, self.agents)

    def entropy(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")

    async def run(
        self,
        run_id: str = "run_1",
        *,
        starter: Principal = ADA,
        state: RunState = RunState.RUNNING,
        agent_id: str = "agt_1",
    ) -> Run:
        """A stored run with its first event."""
        now_us = self.clock.now_us()
        run = Run(
            id=run_id,
            tenant=starter.tenant,
            starter=starter.id,
            root_id=run_id,
            agent_id=agent_id,
            agent_name="hello",
            agent_revision=1,
            agent_owner="user:olga",
            input_json="{}",
            state=state,
            ready_us=now_us,
            create_us=now_us,
            update_us=now_us,
        )
        await self.store.write(
            Reads(runs=[run_id]),
            lambda rows, at: Change(result=None, put=[run], events=[launched(run, "")]),
        )
        return run

    async def approval(
        self,
        run: Run,
        approval_id: str = "apr_1",
        *,
        kind: ApprovalKind = ApprovalKind.PLAN,
        title: str = "Apply the rules?",
        body: str = "All of them.",
        approvers: tuple[str, ...] = (),
        schema: str = "",
        expires_in_us: int = 3_600_000_000,
        evidence_artifact_id: str = "",
    ) -> Approval:
        """A pending approval that the run waits for."""
        now_us = self.clock.now_us()
        approval = Approval(
            id=approval_id,
            tenant=run.tenant,
            run_id=run.id,
            root_id=run.root_id,
            step_id=f"main:approve:{approval_id}#1",
            agent_id=run.agent_id,
            starter=run.starter,
            approvers=approvers,
            kind=kind,
            title=title,
            body=body,
            body_sha256=body_digest(kind, title, body, "null", schema),
            answer_schema_json=schema,
            evidence_artifact_id=evidence_artifact_id,
            create_us=now_us,
            expire_us=now_us + expires_in_us,
        )
        wait = Wait(
            run_id=run.id,
            step_id=approval.step_id,
            kind=StepKind.QUESTION if kind is ApprovalKind.QUESTION else StepKind.APPROVAL,
            since_us=now_us,
            until_us=approval.expire_us,
            approval_id=approval.id,
        )
        await self.store.write(
            Reads(approvals=[approval_id], open_of=[run.id], runs=[run.id]),
            lambda rows, at: Change(result=None, put=[approval, wait]),
        )
        return approval
