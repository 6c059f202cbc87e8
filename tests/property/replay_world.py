"""The world around a fuzzed program: a host that decides, step by step, what happens next.

The undisturbed run lets a seeded chance choose among everything that could happen: a frame of the
copy is taken, a step's function returns, a person decides, the earliest timer fires. A disturbed
run starts from a prefix of that log and lets results come in the order they came there; then it
must come to the same end.

Longer than 350 lines: one class, whose every method is one of the things that can happen next.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

from onbelay_agent.copy import Copy
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.protocol import (
    Begin,
    Begun,
    Cancel,
    Emit,
    Emitted,
    Ended,
    Failure,
    Finish,
    Go,
    Intent,
    Parked,
    Ready,
    Record,
    Recorded,
    Start,
    Stop,
    Suspend,
    ToHost,
)
from onbelay_agent.work import INSIDE

_START_US = 1_700_000_000_000_000
_WORKING = ("STEP", "TOOL")
_world: World


class Mismatch(AssertionError):
    """A disturbed run went another way than the undisturbed one."""


@dataclass
class Unit:
    """What was committed together."""

    records: list[Record] = field(default_factory=list)
    emits: list[Emit] = field(default_factory=list)


@dataclass
class Undisturbed:
    """The run all others are compared with."""

    units: list[Unit]
    intents: dict[str, Intent]
    ended: Ended
    order: list[Record]
    emits: dict[str, str]
    blobs: dict[str, bytes]

    @property
    def outcome(self) -> str:
        return self.ended.outcome

    @property
    def record_count(self) -> int:
        return sum(len(unit.records) for unit in self.units)


class World:
    """One run of a program; the host of its copies."""

    def __init__(self, definition: AgentDefinition, seed: int, rng: random.Random) -> None:
        global _world
        _world = self
        self.definition = definition
        self.seed = seed
        self.rng = rng
        self.units: list[Unit] = []
        self.intents: dict[str, Intent] = {}
        self.open: dict[str, Intent] = {}
        self.finished: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.now_us = _START_US
        self.frames: deque[ToHost] = deque()
        self.arrived = 0
        self.gates: dict[str, asyncio.Future[None]] = {}
        self.executed: Counter[str] = Counter()
        self.parked = False
        self.ended: Ended | None = None
        self.copy: Copy
        self.copies = 0
        self.oracle: Undisturbed | None = None
        self.held: list[Begin] | None = None
        """Batches held back while the run is being paused; None when it is not."""
        self.pauses = 0
        self.unrecorded: set[str] = set()
        """Calls that were held back when the run ended."""

    @classmethod
    def current(cls) -> World:
        return _world

    async def effect(self, number: int) -> None:
        """What a step does: it waits until the world lets it return."""
        work = INSIDE.get()
        assert work is not None
        self.executed[work.step_id] += 1
        if work.step_id in self.finished:
            raise Mismatch(f"{work.step_id} ran again although its result was recorded")
        gate = self.gates[work.step_id] = asyncio.get_running_loop().create_future()
        try:
            await gate
        finally:
            self.gates.pop(work.step_id, None)

    # ---- Host ------------------------------------------------------------------------------------

    def send(self, frame: ToHost) -> None:
        self.arrived += 1
        self.frames.append(frame)

    async def put_blob(self, content: bytes) -> str:
        self.arrived += 1
        sha256 = hashlib.sha256(content).hexdigest()
        self.blobs[sha256] = content
        return sha256

    async def get_blob(self, sha256: str) -> bytes:
        self.arrived += 1
        return self.blobs[sha256]

    # ---- the three kinds of run ------------------------------------------------------------------

    async def undisturbed(self) -> Undisturbed:
        self._new_copy()
        while self.ended is None:
            if self.rng.random() < 0.7:
                await self._settle()
            else:
                await asyncio.sleep(0)
            self._something()
        order = [r for unit in self.units for r in unit.records if r.type == "finished"]
        await self._check_nothing_left()
        emits = self._agent_emits()
        return Undisturbed(self.units, self.intents, self.ended, order, emits, self.blobs)

    async def crashed(
        self,
        baseline: Undisturbed,
        prefix: int,
        again: int | None,
        *,
        suspend: bool = False,
        pause: float = 0.0,
    ) -> None:
        """From the first `prefix` commits of the baseline; killed again `again` commits later;
        suspended at every wait; paused at a share of the boundaries."""
        self.oracle = baseline
        self.intents = dict(baseline.intents)
        self.blobs = dict(baseline.blobs)
        paused_at = -1
        for unit in baseline.units[:prefix]:
            self._remember(unit)
        self._new_copy()
        while self.ended is None:
            await self._settle()
            if again is not None and len(self.units) >= prefix + again:
                again = None
                await self._kill()
                self._new_copy()
            elif len(self.finished) > paused_at and self.rng.random() < pause:
                paused_at = len(self.finished)
                await self._pause()
            elif self.frames:
                self._take()
            elif suspend and self.parked:
                self.parked = False
                self.copy.receive(Suspend())
                await self._until_ended()
                self._follow()
                self._new_copy()
            else:
                self._follow()
        self._compare(baseline)
        await self._check_nothing_left()

    async def _pause(self) -> None:
        """Begin nothing more, let what is in flight end, then suspend; or take the pause back."""
        self.held = []
        while self.ended is None:
            await self._settle()
            if self.frames:
                self._take()
            elif not any(self.intents[step_id].kind in _WORKING for step_id in self.open):
                self.held = None
                self.pauses += 1
                self.copy.receive(Suspend())
                await self._until_ended()
                if self.ended is None:
                    self._new_copy()
                return
            elif not self._follow(strictly=True):
                break
        held, self.held = self.held, None
        if self.ended is None:
            for frame in held:
                self._begin(frame)
        else:
            self.unrecorded = {intent.id for frame in held for intent in frame.intents}

    async def stopped(self, after: int) -> None:
        """Stopped once `after` things were committed: Ended must come, and be the last frame."""
        self._new_copy()
        while self.ended is None and len(self.units) < after:
            await self._settle()
            self._something()
        if self.ended is None:
            told_in_time = self.copy.ending is None
            grace_seconds = self.rng.choice((0.0, 0.0, 0.02))
            self.copy.receive(Stop(grace_seconds=grace_seconds))
            if grace_seconds:
                for gate in list(self.gates.values())[:2]:
                    self._open_gate(gate)
            await self._until_ended()
            assert self.ended is not None
            if told_in_time and self.ended.outcome != "stopped":
                raise Mismatch(f"stopped after {after}, ended {self.ended.outcome}")
        await self._check_nothing_left()

    async def replayed(self, baseline: Undisturbed) -> str:
        """What this program makes of a whole foreign log; `went on` when it asked for more."""
        self.intents, self.blobs = dict(baseline.intents), dict(baseline.blobs)
        for unit in baseline.units:
            self._remember(unit)
        count = len(self.units)
        self._new_copy()
        while self.ended is None and not any(isinstance(f, Begin) for f in self.frames):
            await self._settle()
            if self.frames and not isinstance(self.frames[0], Begin):
                self._take()
        verdict = self.ended.outcome if self.ended is not None else "went on"
        if verdict == "diverged" and any(unit.records for unit in self.units[count:]):
            raise Mismatch("a replay that diverged appended to the log")
        self.copy.abandon()
        return verdict

    # ---- what can happen -------------------------------------------------------------------------

    def _something(self) -> None:
        """Let chance choose."""
        choices: list[Any] = []
        if self.frames:
            choices += [self._take] * 3
        choices += [lambda gate=gate: self._open_gate(gate) for gate in self.gates.values()]
        for step_id, intent in self.open.items():
            if intent.kind not in ("STEP", "TIMER"):
                choices.append(lambda i=step_id: self._finish(i, *self._result(self.intents[i])))
        due = self._next_timer()
        if due is not None:
            choices.append(lambda: self._fire(*due))
        if choices:
            self.rng.choice(choices)()

    @staticmethod
    def _open_gate(gate: asyncio.Future[None]) -> None:
        if not gate.done():
            gate.set_result(None)

    def _next_timer(self) -> tuple[int, str] | None:
        timers = [
            (json.loads(intent.request_json)["due_us"], step_id)
            for step_id, intent in self.open.items()
            if intent.kind == "TIMER"
        ]
        return min(timers, default=None)

    def _fire(self, due_us: int, step_id: str) -> None:
        self.now_us = max(self.now_us, due_us)
        self._finish(step_id, "null", None, "")

    def _result(self, intent: Intent) -> tuple[str | None, Failure | None, str]:
        request = json.loads(intent.request_json)
        lucky = self.rng.random() < 0.7
        if intent.kind == "APPROVAL":
            if lucky:
                return json.dumps({"by": "p", "comment": str(self.rng.randint(0, 9))}), None, ""
            return None, Failure(type="Rejected", message=f"no {self.rng.randint(0, 9)}"), ""
        if intent.kind == "QUESTION":
            return ("7" if lucky else '"seven"'), None, ""
        if intent.kind == "CHILD":
            return self._child(request, lucky)
        if intent.kind == "OPERATION":
            return self._operation(request, lucky)
        if intent.kind == "MESSAGES":
            most = 3 if lucky else 1
            said = range(self.rng.randint(1 if request["wait"] else 0, most))
            told = [{"message_id": f"m{n}", "sent_by": "p", "text": str(n)} for n in said]
            return json.dumps(told), None, ""
        if intent.kind == "VERSION":
            return str(request["version"]), None, ""
        if intent.kind == "ARTIFACT_SAVE":
            content = self.blobs[request["sha256"]]
            self.files[request["name"]] = content
            return json.dumps({"artifact_id": "art"}), None, ""
        if intent.kind == "ARTIFACT_READ":
            found = self.files.get(request["name"])
            if found is None:
                return None, Failure(type="ArtifactFailed", message="none"), ""
            return "{}", None, hashlib.sha256(found).hexdigest()
        if lucky:
            return json.dumps([request["arguments"], self.rng.random()]), None, ""
        return None, Failure(type="ToolFailed", message="broken"), ""

    def _child(self, request: Any, lucky: bool) -> tuple[str | None, Failure | None, str]:
        if "agent" in request:
            return json.dumps({"child_run_id": f"run_{self.rng.randint(1, 99)}"}), None, ""
        if lucky:
            return str(self.rng.randint(0, 9)), None, ""
        data = json.dumps({"child_run_id": request["child_run_id"], "state": "FAILED"})
        return None, Failure(type="ChildRunFailed", message="it failed", data_json=data), ""

    def _operation(self, request: Any, lucky: bool) -> tuple[str | None, Failure | None, str]:
        if "name" in request:
            number = self.rng.randint(1, 99)
            return json.dumps({"operation_id": f"op_{number}", "token": f"t{number}"}), None, ""
        if lucky:
            return str(self.rng.randint(0, 9)), None, ""
        reason = self.rng.choice(("EXPIRED", "BROKEN"))
        data = json.dumps({"operation_id": request["operation_id"], "reason": reason})
        return None, Failure(type="OperationFailed", message="no", data_json=data), ""

    def _follow(self, *, strictly: bool = False) -> bool:
        """The next result of the undisturbed run that can come now; `strictly`: False, and nothing,
        when that is no work in flight, or another should have come before it."""
        assert self.oracle is not None
        for record in self.oracle.order:
            intent = self.open.get(record.step_id)
            is_working = intent is not None and intent.kind in _WORKING
            if strictly and record.step_id not in self.finished and not is_working:
                return False
            if intent is None:
                continue
            if intent.kind != "STEP":
                self.now_us = record.time_us - 1
                self._finish(record.step_id, record.ok_json, record.failure, record.content_sha256)
                return True
            gate = self.gates.get(record.step_id)
            if gate is not None:
                self._open_gate(gate)
                return True
            if strictly:
                return False  # the batch that begins it again is held back
        if strictly:
            return False
        raise Mismatch(f"nothing can happen; open: {sorted(self.open)}")

    # ---- frames ----------------------------------------------------------------------------------

    def _take(self) -> None:
        frame = self.frames.popleft()
        match frame:
            case Begin() if self.held is not None:
                self._commit(Unit([], list(frame.emits)))
                self.held.append(replace(frame, emits=()))
            case Begin():
                self._begin(frame)
            case Finish():
                self._finished(frame)
            case Cancel():
                records = [
                    Record(type="cancelled", step_id=step_id, time_us=0)
                    for step_id in frame.step_ids
                    if step_id in self.open
                ]
                self._commit(Unit(records))
                for record in records:
                    self.copy.receive(Recorded(record=record))
            case Emitted():
                self._commit(Unit([], list(frame.emits)))
            case Parked():
                self.parked = not self.frames
            case Ended():
                self.ended = frame
                self._commit(Unit([], list(frame.emits)))
                if self.frames:
                    raise Mismatch(f"frames after Ended: {self.frames}")

    def _begin(self, frame: Begin) -> None:
        unit = Unit(emits=list(frame.emits))
        for intent in frame.intents:
            if intent.id in self.open or intent.id in self.finished:
                raise Mismatch(f"{intent.id} was begun twice")
            self.intents[intent.id] = intent
            unit.records.append(self._start(intent, frame.stage))
            if intent.cancelled:
                unit.records.append(Record(type="cancelled", step_id=intent.id, time_us=0))
        for again in frame.reopened:
            start = self._start(self.intents[again.step_id], frame.stage)
            unit.records.append(replace(start, attempt=again.attempt))
        answers = [self._answer(i) for i in frame.intents if self._is_answered_at_once(i)]
        unit.records += answers
        self._commit(unit)
        self.copy.receive(Begun(stage=frame.stage))
        for answer in answers:
            self.copy.receive(Recorded(record=answer))

    def _is_answered_at_once(self, intent: Intent) -> bool:
        """As a host does. Where an undisturbed run is followed, in the order of its results."""
        if intent.cancelled:
            return False
        request = json.loads(intent.request_json)
        return intent.kind == "VERSION" or (
            self.oracle is None
            and (
                (intent.kind == "CHILD" and "agent" in request)
                or (intent.kind == "OPERATION" and "name" in request)
                or (intent.kind == "MESSAGES" and not request["wait"])
            )
        )

    def _answer(self, intent: Intent) -> Record:
        self.now_us += 1
        ok_json, failure, _ = self._result(intent)
        return Record(
            type="finished",
            step_id=intent.id,
            time_us=self.now_us,
            ok_json=ok_json,
            failure=failure,
        )

    def _start(self, intent: Intent, stage: int) -> Record:
        return Record(
            type="started",
            step_id=intent.id,
            time_us=0,
            kind=intent.kind,
            digest=intent.digest,
            stage=stage,
            cancelled=intent.cancelled,
        )

    def _finished(self, frame: Finish) -> None:
        self._finish(
            frame.step_id,
            frame.ok_json,
            frame.failure,
            frame.content_sha256,
            frame.stage,
            list(frame.emits),
        )

    def _finish(
        self,
        step_id: str,
        ok_json: str | None,
        failure: Failure | None,
        content_sha256: str,
        stage: int | None = None,
        emits: list[Emit] | None = None,
    ) -> None:
        if step_id not in self.open:
            self._commit(Unit([], emits or []))
            return
        self.now_us += 1
        time_us = self.now_us
        if self.oracle is not None:
            expected = [r for r in self.oracle.order if r.step_id == step_id]
            if expected:
                time_us = expected[0].time_us
                if (expected[0].ok_json, expected[0].failure) != (ok_json, failure):
                    raise Mismatch(f"{step_id} came to {ok_json} {failure}, not {expected[0]}")
        record = Record(
            type="finished",
            step_id=step_id,
            time_us=time_us,
            stage=stage,
            ok_json=ok_json,
            failure=failure,
            content_sha256=content_sha256,
        )
        self._commit(Unit([record], emits or []))
        self.copy.receive(Recorded(record=record))

    def _commit(self, unit: Unit) -> None:
        if unit.records or unit.emits:
            self.parked = False
            self._remember(unit)

    def _remember(self, unit: Unit) -> None:
        self.units.append(unit)
        for record in unit.records:
            if record.type != "started":
                self.open.pop(record.step_id, None)
                self.finished.add(record.step_id)
            elif record.step_id not in self.finished:
                self.open[record.step_id] = self.intents[record.step_id]
            if record.type == "finished":
                self.now_us = max(self.now_us, record.time_us)

    # ---- copies ----------------------------------------------------------------------------------

    def _new_copy(self) -> None:
        self.copies += 1
        self.held = None
        self.frames.clear()
        self.parked = False
        self.ended = None
        self.copy = Copy(self.definition, self, asyncio.get_running_loop())
        self.copy.backoff = 0.0
        ready = self.frames.popleft()
        assert isinstance(ready, Ready)
        highest: dict[str, int] = {}
        for unit in self.units:
            for emit in unit.emits:
                branch, _, ordinal = emit.place.rpartition(":emit#")
                highest[branch] = max(highest.get(branch, 0), int(ordinal))
        self.copy.receive(
            Start(
                run_id="r",
                agent="program",
                attempt=self.copies,
                start_us=_START_US,
                input_json=json.dumps({"seed": self.seed}),
                seed="s",
                emitted=highest,
                journal=tuple(record for unit in self.units for record in unit.records),
            )
        )
        self.copy.receive(Go())

    async def _kill(self) -> None:
        copy = self.copy
        copy.abandon()
        for _ in range(20):
            await asyncio.sleep(0)
        self.gates.clear()

    async def _settle(self) -> None:
        """Until the copy does nothing more by itself."""
        quiet, arrived = 0, self.arrived
        while quiet < 12:
            await asyncio.sleep(0)
            quiet = quiet + 1 if arrived == self.arrived else 0
            arrived = self.arrived

    async def _until_ended(self) -> None:
        for _ in range(1000):
            while self.frames:
                self._take()
            if self.ended is not None:
                if self.ended.outcome == "suspended":
                    self.ended = None
                return
            await asyncio.sleep(0 if _ < 100 else 0.01)
        raise Mismatch("told to end, it did not")

    async def _check_nothing_left(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        if self.ended is not None and self.ended.outcome in ("returned", "raised") and self.open:
            raise Mismatch(f"still open after the end: {sorted(self.open)}")
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left or self.frames:
            raise Mismatch(f"left after Ended: {left} {self.frames}")

    # ---- comparing -------------------------------------------------------------------------------

    def _agent_emits(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for unit in self.units:
            for emit in unit.emits:
                if emit.place in found:
                    raise Mismatch(f"{emit.place} was written twice")
                if "/attempt" not in emit.place:
                    found[emit.place] = f"{emit.kind} {emit.text} {emit.done}"
        return found

    def _compare(self, baseline: Undisturbed) -> None:
        assert self.ended is not None
        for what in ("outcome", "output_json", "error_type", "message"):
            expected, found = getattr(baseline.ended, what), getattr(self.ended, what)
            if expected != found:
                raise Mismatch(f"{what} is {found!r:.3000}, undisturbed {expected!r:.3000}")
        if self._agent_emits() != baseline.emits:
            raise Mismatch(f"emits are {self._agent_emits()}, undisturbed {baseline.emits}")
        started = {r.step_id for unit in self.units for r in unit.records if r.type == "started"}
        expected_ids = set(baseline.intents) - self.unrecorded
        # What was asked while it replayed stays unrecorded when the code ends in the replay.
        if started - expected_ids or (self.copy.live and started != expected_ids):
            extra, missing = sorted(started - expected_ids), sorted(expected_ids - started)
            raise Mismatch(f"recorded as well: {extra}; not recorded: {missing}")
        most = self.copies
        for step_id, count in self.executed.items():
            if count > most:
                raise Mismatch(f"{step_id} ran {count} times in {most} copies")
