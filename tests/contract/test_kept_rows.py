"""What a store keeps in memory is what its file holds, whatever was written in whatever order."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.memory import MemoryStore
from onbelay_server.adapters.sql import SqlStore, migrate
from onbelay_server.domain.change import Change, Entity, Reads, Rows
from onbelay_server.domain.error import Aborted
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import OperationState
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import ApprovalState, RunState
from onbelay_server.ports.store import Store
from tests.contract.entities import (
    T0,
    make_agent,
    make_approval,
    make_message,
    make_operation,
    make_revision,
    make_run,
    make_wait,
)
from tests.manual_clock import ManualClock

RUNS = [f"r{number}" for number in range(6)]
AGENTS = ["a1", "a2", "a3"]
NAMES = ["one", "two"]
STEPS = ["s1", "s2", "s3"]
STATES = [RunState.QUEUED, RunState.QUEUED, RunState.RUNNING, RunState.SUCCEEDED]


class Step:
    """One random write, the same for every store."""

    def __init__(self, luck: random.Random) -> None:
        self.run_id = luck.choice(RUNS)
        self.agent_id, self.name = luck.choice(AGENTS), luck.choice(NAMES)
        self.state, self.step_id = luck.choice(STATES), luck.choice(STEPS)
        self.ready_us, self.number = T0 + luck.randrange(9), luck.randrange(3)
        self.kind = luck.choice(
            ["run", "run", "wait", "wait", "unwait", "ask", "decide", "operation", "message",
             "read", "delete", "agent", "revision"]
        )  # fmt: skip
        # Rows may be written without all that is open having been read.
        self.has_open = luck.random() < 0.5

    @property
    def reads(self) -> Reads:
        return Reads(
            runs=[self.run_id],
            open_of=[self.run_id] if self.has_open else [],
            approvals=[f"ask_{self.run_id}_{self.number}"],
            operations=[f"op_{self.run_id}_{self.number}"],
            agents=AGENTS,
            agent_names=[("acme", name) for name in NAMES],
            revisions=[(self.agent_id, self.number + 1)],
        )

    def decide(self, rows: Rows, _now_us: int) -> Change[None]:
        run = rows.run(self.run_id)
        if self.kind == "run":
            before = run or make_run(self.run_id, tenant=f"t{self.number}")
            moved = replace(before, state=self.state, ready_us=self.ready_us)
            return Change(result=None, put=[moved])
        if self.kind == "agent":
            return self._agent(rows)
        if self.kind == "revision":
            known = rows.revision(self.agent_id, self.number + 1)
            absent = rows.agent(self.agent_id) is None
            made = make_revision(self.agent_id, self.number + 1, description=self.name)
            return Change(result=None, put=[] if known or absent else [made])
        if run is None:
            return Change(result=None)
        return self._open(rows, run)

    def _agent(self, rows: Rows) -> Change[None]:
        agent = rows.agent(self.agent_id)
        if agent is None:
            put: Entity = make_agent(self.agent_id, self.name)
        else:
            put = replace(agent, name=self.name, delete_us=T0 if self.number == 0 else None)
        # A name that is taken is refused, the same everywhere.
        return Change(result=None, put=[put])

    def _open(self, rows: Rows, run: Run) -> Change[None]:
        wait = make_wait(run.id, self.step_id, since_us=self.ready_us)
        put: list[Entity] = []
        delete: list[Wait | Message | Run] = []
        match self.kind:
            case "wait":
                put = [wait]
            case "unwait":
                delete = [wait]
            case "ask":
                if rows.approval(f"ask_{run.id}_{self.number}") is None:
                    put = [make_approval(f"ask_{run.id}_{self.number}", run)]
            case "decide":
                found = rows.approval(f"ask_{run.id}_{self.number}")
                if found is not None:
                    put = [replace(found, state=ApprovalState.APPROVED)]
            case "operation":
                state = OperationState.OPEN if self.step_id == "s1" else OperationState.SUCCEEDED
                put = [make_operation(f"op_{run.id}_{self.number}", run, state=state)]
            case "message":
                unread = rows.unread(run.id) if self.has_open else []
                if self.has_open and not unread:
                    put = [make_message(run.id, self.number)]
                delete = list(unread)
            case "delete":
                delete = [run]
        return Change(result=None, put=put, delete=delete)


async def picture(store: Store) -> object:
    """Everything that memory may answer."""

    def look(rows: Rows, _now_us: int) -> Change[object]:
        opened = [
            (
                rows.run(run_id),
                rows.waits(run_id),
                rows.pending_approvals(run_id),
                rows.open_operations(run_id),
                rows.unread(run_id),
            )
            for run_id in RUNS
        ]
        agents = [rows.agent(name) for name in AGENTS]
        return Change(result=(opened, agents, [rows.agent_named("acme", name) for name in NAMES]))

    names = [("acme", name) for name in NAMES]
    reads = Reads(runs=RUNS, open_of=RUNS, agents=AGENTS, agent_names=names)
    seen = (await store.write(reads, look)).result
    return (
        seen,
        await store.waits(RUNS),
        [await store.agent(name) for name in AGENTS],
        [await store.agent_named("acme", name) for name in NAMES],
        [await store.revision(name, number) for name in AGENTS for number in (1, 2, 3)],
        [run.id for run in await store.claimable(T0 + 4, limit=4)],
        await store.next_ready_us(),
    )


@pytest.mark.parametrize("seed", range(6))
async def test_memory_and_file_agree(
    tmp_path: Path, codec: ProtoEventCodec, clock: ManualClock, seed: int
) -> None:
    luck = random.Random(seed)
    url = f"sqlite:///{tmp_path}/store.db"
    await migrate(url)
    model = MemoryStore(codec=codec, clock=clock)
    store = await SqlStore.open(url, codec=codec, clock=clock)
    try:
        for _ in range(12):
            for _ in range(25):
                step = Step(luck)
                clock.advance(1)
                outcomes = []
                for one in (model, store):
                    try:
                        await one.write(step.reads, step.decide)
                        outcomes.append("written")
                    except Aborted:
                        outcomes.append("refused")
                assert outcomes[0] == outcomes[1]
            kept = await picture(store)
            assert kept == await picture(model)
            if luck.random() < 0.3:
                await store.close()
                store = await SqlStore.open(url, codec=codec, clock=clock)
                assert await picture(store) == kept
    finally:
        await store.close()
