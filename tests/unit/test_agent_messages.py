"""A message that was taken by a call nobody waits for any more reaches the next call for messages.

The host here commits at once, as the server does, and tells the copy late: between the two a timer
that has fired makes the code give up the call that a message is given to.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import pytest

from onbelay_agent import Context, agent
from onbelay_agent.copy import Copy
from onbelay_agent.protocol import (
    Begin,
    Begun,
    Cancel,
    Ended,
    FromHost,
    Go,
    Intent,
    Record,
    Recorded,
    Start,
    ToHost,
)

TURNS = 40
"""Of the loop, in which a copy does all it can do without news."""


@agent(accepts_messages=True)
async def listener(ctx: Context) -> list[str]:
    heard: list[str] = []
    while len(heard) < 3:
        try:
            async with asyncio.timeout(60):
                heard += [message.text for message in await ctx.messages()]
        except TimeoutError:
            heard += [message.text for message in await ctx.messages(wait=False)]
    return heard


class Desk:
    """A log, what is open in it, and the one copy that runs over it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.open: dict[str, Intent] = {}
        self.unread: deque[str] = deque()
        self.news: deque[FromHost] = deque()
        self.ended: Ended | None = None
        self.copy: Copy | None = None

    def launch(self) -> None:
        """Another copy, in place of the one that is dropped."""
        if self.copy is not None:
            self.copy.abandon()
        self.news.clear()
        self.copy = copy = Copy(listener, self, asyncio.get_running_loop())
        journal = tuple(self.records)
        copy.receive(
            Start(
                run_id="r",
                agent="listener",
                attempt=1,
                start_us=0,
                input_json="{}",
                seed="s",
                journal=journal,
            )
        )
        copy.receive(Go())

    # ---- the copy's host

    def send(self, frame: ToHost) -> None:
        match frame:
            case Begin():
                self.news.append(Begun(stage=frame.stage, held=()))
                for intent in frame.intents:
                    self._begin(frame.stage, intent)
            case Cancel():
                for step_id in frame.step_ids:
                    if self.open.pop(step_id, None) is not None:
                        self._add(Record(type="cancelled", step_id=step_id, time_us=1))
            case Ended():
                self.ended = frame

    async def put_blob(self, content: bytes) -> str:
        raise AssertionError("nothing large here")

    async def get_blob(self, sha256: str) -> bytes:
        raise LookupError(sha256)

    # ---- the log

    def _begin(self, stage: int, intent: Intent) -> None:
        started = Record(
            type="started",
            step_id=intent.id,
            time_us=1,
            kind=intent.kind,
            digest=intent.digest,
            stage=stage,
            cancelled=intent.cancelled,
        )
        self.records.append(started)
        if intent.cancelled:
            return
        self.open[intent.id] = intent
        if intent.kind == "MESSAGES" and (
            self.unread or not json.loads(intent.request_json)["wait"]
        ):
            self._give(intent.id, *self.unread)
            self.unread.clear()

    def _add(self, record: Record) -> None:
        self.records.append(record)
        if record.type != "started":
            self.news.append(Recorded(record=record))

    def _give(self, step_id: str, *texts: str) -> None:
        said = [{"message_id": text, "sent_by": "ada", "text": text} for text in texts]
        self._end(step_id, json.dumps(said))

    def _end(self, step_id: str, ok_json: str) -> None:
        del self.open[step_id]
        self._add(Record(type="finished", step_id=step_id, time_us=1, ok_json=ok_json))

    def say(self, text: str) -> None:
        """SendMessage: to the call that is open, or kept."""
        waits = [one.id for one in self.open.values() if one.kind == "MESSAGES"]
        if waits:
            self._give(waits[0], text)
        else:
            self.unread.append(text)

    def fire(self) -> None:
        """The timers that are open fire."""
        for step_id in [one.id for one in self.open.values() if one.kind == "TIMER"]:
            self._end(step_id, "null")

    async def turn(self, times: int = TURNS, *, tell: bool = True) -> None:
        """Let the copy run, telling it one thing a turn."""
        for _ in range(times):
            if tell and self.news and self.copy is not None:
                self.copy.receive(self.news.popleft())
            await asyncio.sleep(0)


def output(desk: Desk) -> Any:
    assert desk.ended is not None, desk.records
    assert desk.ended.outcome == "returned", desk.ended
    return json.loads(desk.ended.output_json or "null")


@pytest.mark.parametrize("crash", ["never", "at once", "later"])
@pytest.mark.parametrize("told", range(12))
async def test_a_message_given_to_a_call_that_is_given_up_is_heard(told: int, crash: str) -> None:
    desk = Desk()
    desk.launch()
    await desk.turn()
    for text in ("m0", "m1"):
        # The timer is first in the log, and the message goes to the call that waits still.
        desk.fire()
        await desk.turn(told)
        desk.say(text)
        if crash == "at once":
            desk.launch()
        await desk.turn(told)
        if crash == "later":
            desk.launch()
        await desk.turn()
    desk.say("m2")
    await desk.turn()
    assert output(desk) == ["m0", "m1", "m2"]


async def test_every_prefix_of_the_log_comes_to_the_same() -> None:
    desk = Desk()
    desk.launch()
    await desk.turn()
    for number in range(2):
        desk.fire()
        desk.say(f"m{number}")
        await desk.turn()
    desk.say("m2")
    await desk.turn()
    expected, records = output(desk), list(desk.records)
    for length in range(len(records) + 1):
        again = Desk()
        again.records = records[:length]
        ended = {one.step_id for one in records[:length] if one.type != "started"}
        again.open = {
            one.step_id: _intent(one)
            for one in records[:length]
            if one.type == "started" and one.step_id not in ended and not one.cancelled
        }
        heard = "".join(one.ok_json or "" for one in records[:length])
        again.launch()
        await again.turn()
        for text in expected:
            if f'"{text}"' not in heard:
                again.say(text)
                await again.turn()
        assert output(again) == expected, length


def _intent(started: Record) -> Intent:
    assert started.kind is not None
    return Intent(
        id=started.step_id, kind=started.kind, name="", digest="", request_json='{"wait": true}'
    )
