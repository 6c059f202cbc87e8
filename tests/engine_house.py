"""The whole engine over a store in memory, a clock set by hand and copies that a test plays."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from onbelay_agent.protocol import Begin, CallKind, Ended, FromHost, Intent
from onbelay_server.adapters.blobs import MemoryBlobs
from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.adapters.memory import MemoryStore
from onbelay_server.adapters.wakeup import LocalWakeup
from onbelay_server.app.approvals import Approvals
from onbelay_server.app.engine.alarm import Alarm
from onbelay_server.app.engine.emits import EmitEncoder
from onbelay_server.app.engine.engine import Engine
from onbelay_server.app.engine.parts import Pace, Parts
from onbelay_server.app.engine.sweeper import Retention, Sweeper
from onbelay_server.app.governance.broker import Broker
from onbelay_server.app.operation_token import OperationTokens
from onbelay_server.app.stops import Stops
from onbelay_server.app.watching.announcer import Announcer
from onbelay_server.app.watching.lists import ListWatches
from onbelay_server.app.watching.tail import Tails
from onbelay_server.app.watching.watches import Watches
from onbelay_server.domain.agent import AgentRevision, HarnessKind, Limits
from onbelay_server.domain.approval import Approval, Verdict
from onbelay_server.domain.change import Change, Reads, Rows
from onbelay_server.domain.lifecycle import claimed, given_back, launched
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import ApprovalState, Decision, Risk, RunState
from onbelay_server.ports.event_codec import RecordedEvent
from onbelay_server.ports.store import ApprovalFilter
from onbelay_server.ports.tools import ToolError
from onbelay_server.ports.wakeup import Wakeup
from tests.manual_clock import ManualClock
from tests.patience import PATIENCE_SECONDS, until
from tests.played import PlayedCopy, PlayedHarness, PlayedTools
from tests.resources import ADA

T = TypeVar("T")
F = TypeVar("F", bound=FromHost)

AGENT_ID = "agt_1"


class EngineHouse:
    """Engine, watching and use cases as the wiring has them, with everything in the test's hand."""

    def __init__(self, wakeup: Wakeup | None = None) -> None:
        self.clock = ManualClock()
        self.codec = ProtoEventCodec()
        self.store = MemoryStore(codec=self.codec, clock=self.clock)
        self.wakeup: Wakeup = wakeup or LocalWakeup()
        self.blobs = MemoryBlobs()
        self.tools = PlayedTools()
        self.harness = PlayedHarness()
        sweeper = Sweeper(self.store, self.blobs, self.clock, Retention())
        self.pace = Pace(poll_seconds=0.02)
        parts = Parts(
            owner="worker_1",
            store=self.store,
            codec=self.codec,
            emits=EmitEncoder(self.codec),
            clock=self.clock,
            wakeup=self.wakeup,
            blobs=self.blobs,
            broker=Broker(self.tools),
            tokens=OperationTokens(bytes(32)),
            harnesses={HarnessKind.PYTHON: self.harness},
            pace=self.pace,
            alarm=Alarm(self.clock),
        )
        self.parts = parts
        self.engine = Engine(parts, sweeper)
        self.announcer = Announcer(self.codec, self.wakeup)
        self.tails = Tails(self.store, self.codec)
        self.announcer.on_commit(self.engine.committed)
        self.announcer.on_commit(self.tails.committed)
        self.store.on_commit(self.announcer.committed)
        self.watches = Watches(self.store, self.tails, self.clock, self.codec, poll_seconds=0.02)
        self.stops = Stops(self.store)
        self.approvals = Approvals(self.store, self.clock)
        self.lists = ListWatches(
            self.store, self.announcer, self.approvals, self.clock, poll_seconds=0.02
        )
        self._numbers = itertools.count(1)

    async def prepare(self, **fields: Any) -> None:
        """The one agent."""
        values: dict[str, Any] = {
            "agent_id": AGENT_ID,
            "revision": 1,
            "create_us": self.clock.now_us(),
            "created_by": "user:olga",
            "blueprint": "played",
            "allowed_tools": ("look", "write", "upsert"),
            "highest_risk": Risk.WRITE,
            "limits": Limits(grace_seconds=10, kill_seconds=5, idle_seconds=3600),
        }
        revision = AgentRevision(**(values | fields))
        await self.store.write(
            Reads(revisions=[(AGENT_ID, 1)]),
            lambda rows, at: Change(result=None, put=[revision]),
        )

    async def start(self, **fields: Any) -> Run:
        """A queued run of it, started by Ada."""
        run_id = f"run_{next(self._numbers):04}"
        now_us = self.clock.now_us()
        values: dict[str, Any] = {
            "id": run_id,
            "tenant": ADA.tenant,
            "starter": ADA.id,
            "root_id": run_id,
            "agent_id": AGENT_ID,
            "agent_name": "played",
            "agent_revision": 1,
            "agent_owner": "user:olga",
            "input_json": "{}",
            "ready_us": now_us,
            "create_us": now_us,
            "update_us": now_us,
        }
        run = Run(**(values | fields))
        await self.store.write(
            Reads(runs=[run.id]),
            lambda rows, at: Change(result=None, put=[run], events=[launched(run, "")]),
        )
        return run

    async def begun(self, **fields: Any) -> tuple[Run, PlayedCopy]:
        """A new run and its first copy."""
        count = len(self.harness.launched)
        run = await self.start(**fields)
        return run, await self.copy(count + 1)

    async def copy(self, number: int) -> PlayedCopy:
        """The copy that was launched as the `number`th of all."""
        launched = self.harness.launched
        return await until(lambda: launched[number - 1] if len(launched) >= number else None)  # type: ignore[return-value,arg-type]

    async def run(self, run_id: str) -> Run:
        run = await self.store.run(run_id)
        assert run is not None
        return run

    async def reached(self, run_id: str, *states: RunState) -> Run:
        """The run once it is in one of these states."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (run := await self.run(run_id)).state not in states:  # noqa: ASYNC110
                await asyncio.sleep(0)
        return run

    async def looked(self, read: str, count: int = 2) -> None:
        """Whoever reads the store by this method has done so again, so often, since the call."""
        original, seen = getattr(self.store, read), 0

        async def counting(*positions: Any, **names: Any) -> Any:
            nonlocal seen
            answer = await original(*positions, **names)
            seen += 1
            return answer

        setattr(self.store, read, counting)
        try:
            await until(lambda: seen >= count)
        finally:
            setattr(self.store, read, original)

    async def as_time_passes(self, found: Callable[[], T]) -> T:
        """What `found` returns once it is true, with time flying on the clock meanwhile."""
        async with asyncio.timeout(4 * PATIENCE_SECONDS):
            while not (value := found()):
                self.clock.advance(0.1)
                await asyncio.sleep(0)
        return value

    async def log(self, run_id: str) -> list[RecordedEvent]:
        found = await self.store.events(run_id, after=0, limit=100_000, max_bytes=2**30)
        return [self.codec.decode(one.body) for one in found]

    async def kinds(self, run_id: str) -> list[str]:
        return [type(event.payload).__name__ for event in await self.log(run_id)]

    async def pending(self, run_id: str) -> Approval:
        """The approval the run waits for, once it is asked."""
        viewer = Viewer(tenant=ADA.tenant, principal=ADA.id, is_admin=True)
        which = ApprovalFilter(run_id=run_id, states=[ApprovalState.PENDING])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (  # noqa: ASYNC110
                found := await self.store.list_approvals(viewer, which, after=None, limit=1)
            ):
                await asyncio.sleep(0)
        return found[0]

    async def decide(self, approval: Approval, decision: Decision, **more: Any) -> None:
        verdict = Verdict(decision=decision, body_sha256=approval.body_sha256, **more)
        await self.approvals.decide(ADA, approval.id, verdict, None)

    async def stolen(self, run_id: str) -> None:
        """Another process has taken the run over."""

        def take(rows: Rows, now_us: int) -> Change[None]:
            run = rows.run(run_id)
            assert run is not None
            back, lost = given_back(run, now_us, "the lease ended")
            after, event = claimed(back, "worker_other", now_us + 30_000_000, now_us)
            return Change(result=None, put=[after], events=[lost, event])

        await self.store.write(Reads(runs=[run_id]), take)


@asynccontextmanager
async def engine_house(wakeup: Wakeup | None = None, **agent: Any) -> AsyncIterator[EngineHouse]:
    """A house whose engine runs."""
    house = EngineHouse(wakeup)
    await house.prepare(**agent)
    house.engine.start()
    try:
        yield house
    finally:
        await house.engine.close()


def intent(step_id: str, kind: CallKind = "STEP", request_json: str = '{"once":false}') -> Intent:
    """A call of an agent."""
    return Intent(id=step_id, kind=kind, name="it", digest="0" * 64, request_json=request_json)


def tool_intent(step_id: str, tool: str) -> Intent:
    request = f'{{"tool":"{tool}","arguments":{{"n":1}},"timeout_seconds":null}}'
    return intent(step_id, "TOOL", request)


def approval_intent(step_id: str) -> Intent:
    return intent(step_id, "APPROVAL", '{"title":"Go on?","body":"","evidence":null}')


def begin(*intents: Intent, stage: int = 0) -> Begin:
    return Begin(stage=stage, intents=intents)


RETURNED = Ended(outcome="returned", output_json='"ok"')
FAILING = ToolError("ToolFailed", "it broke")


def entries(frame: bytes) -> list[bytes]:
    """The stored events of a reply's first bytes, one by one."""
    found, at = [], 0
    while at < len(frame):
        assert frame[at] == 0x0A
        size, shift, at = 0, 0, at + 1
        while True:
            byte = frame[at]
            size |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        found.append(frame[at : at + size])
        at += size
    return found
