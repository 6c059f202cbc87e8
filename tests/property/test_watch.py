"""Any interleaving of appends, decisions, stops, losses and watchers keeps the promises."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from onbelay.v1.event_pb2 import RunEvent
from onbelay_agent.protocol import Begun, Ended, Finish, Parked, Stop, Suspend
from onbelay_server.app.watching.watches import Position, StreamEnd
from onbelay_server.domain.state import Decision, RunState
from onbelay_server.ports.harness import CopyLost
from tests.checker import CHECKS, Final
from tests.contract.entities import append
from tests.engine_house import RETURNED, approval_intent, begin, engine_house, entries, intent
from tests.hostile_wakeup import HostileWakeup
from tests.played import PlayedCopy
from tests.recorder import Recording
from tests.resources import ADA

WATCHERS = 3
ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 200)),
    st.tuples(st.just("step"), st.integers(0, 1)),
    st.tuples(st.just("ask"), st.just(0)),
    st.tuples(st.just("decide"), st.sampled_from([Decision.APPROVE, Decision.REJECT])),
    st.tuples(st.just("lose"), st.just(0)),
    st.tuples(st.just("stop"), st.just(0)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("watch"), st.integers(0, WATCHERS - 1)),
    st.tuples(st.just("leave"), st.integers(0, WATCHERS - 1)),
    st.tuples(st.just("pass"), st.integers(1, 30)),
)


@dataclass
class Watcher:
    """Holds what it was told over all its connections."""

    bodies: list[bytes] = field(default_factory=list)
    position: int = 0
    task: asyncio.Task[None] | None = None
    is_finished: bool = False

    async def follow(self, watches: Any, run_id: str) -> None:
        where = Position(after=self.position)
        async with aclosing(watches.watch(ADA, run_id, where)) as watch:
            async for page in watch:
                self.bodies += entries(page.frame)
                assert page.complete_through >= self.position
                sequences = [RunEvent.FromString(body).sequence for body in entries(page.frame)]
                first = self.position + 1
                assert sequences == list(range(first, first + len(sequences)))
                assert page.complete_through == self.position + len(sequences)
                self.position = page.complete_through
                self.is_finished = page.end is StreamEnd.FINISHED

    async def leave(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25), is_hostile=st.booleans())
def test_watchers_hold_the_log_whatever_happens(
    actions: list[tuple[str, Any]], is_hostile: bool
) -> None:
    asyncio.run(play(actions, is_hostile))


async def play(actions: list[tuple[str, Any]], is_hostile: bool) -> None:
    wakeup = HostileWakeup(seed=len(actions)) if is_hostile else None
    async with engine_house(wakeup=wakeup) as house:
        run = await house.start()
        await house.copy(1)
        watchers = [Watcher() for _ in range(WATCHERS)]
        steps = 0

        def copy() -> PlayedCopy:
            return house.harness.launched[-1]

        for name, value in actions:
            is_final = (await house.run(run.id)).state.is_final
            if name == "append":
                if not is_final:
                    await append(house.store, run.id, count=value)
            elif name == "step":
                steps += 1
                step_id = f"s{steps}"
                copy().say(begin(intent(step_id), stage=steps))
                await turns()
                if value:
                    copy().say(Finish(step_id=step_id, stage=steps, ok_json="1"))
            elif name == "ask":
                steps += 1
                copy().say(
                    begin(approval_intent(f"a{steps}"), stage=steps),
                    Parked(stage=steps, waiting=(f"a{steps}",)),
                )
            elif name == "decide":
                waits = (await house.store.waits([run.id]))[run.id]
                for wait in waits[:1]:
                    approval = await house.store.approval(wait.approval_id or "")
                    assert approval is not None
                    await house.decide(approval, value)
            elif name == "lose":
                copy().say(CopyLost(reason="gone"))
            elif name == "stop":
                await house.stops.stop(ADA, run.id, "enough")
            elif name == "finish":
                copy().say(RETURNED)
            elif name == "watch":
                watcher = watchers[value]
                if watcher.task is None or watcher.task.done():
                    watcher.task = asyncio.create_task(watcher.follow(house.watches, run.id))
            elif name == "leave":
                await watchers[value].leave()
            else:
                for _ in range(value):
                    house.clock.advance(1)
                    await turns()
                    _end_what_was_told_to(house.harness.launched)
            await turns()
            _end_what_was_told_to(house.harness.launched)

        await house.stops.stop(ADA, run.id, "the end")
        async with asyncio.timeout(5):
            while not (await house.run(run.id)).state.is_final:
                _end_what_was_told_to(house.harness.launched)
                house.clock.advance(0.05)
                await asyncio.sleep(0.001)
        for watcher in watchers:
            if not watcher.is_finished:
                await watcher.leave()
                watcher.task = asyncio.create_task(watcher.follow(house.watches, run.id))
            assert watcher.task is not None
            async with asyncio.timeout(5):
                await watcher.task
        stored = await house.store.events(run.id, after=0, limit=10**6, max_bytes=2**30)
        for watcher in watchers:
            assert watcher.is_finished
            assert watcher.bodies == [event.body for event in stored]
        final = await Final.of(house.store)
        nothing = Recording()
        broken = [text for check in CHECKS for text in check(nothing, final)]
        assert not broken, broken
        assert final.runs[run.id].state in {
            RunState.STOPPED,
            RunState.SUCCEEDED,
            RunState.FAILED,
        }


def _end_what_was_told_to(copies: list[PlayedCopy]) -> None:
    """Copies unwind when they are told to, as copies do."""
    for copy in copies:
        for frame in list(copy.told):
            if isinstance(frame, Suspend | Stop):
                copy.told.remove(frame)
                copy.say(Ended(outcome="stopped" if isinstance(frame, Stop) else "suspended"))
            elif isinstance(frame, Begun):
                copy.told.remove(frame)
