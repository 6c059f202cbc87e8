"""A host in memory: runs one copy over a RunLog, for `onbelay_agent.testing`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from onbelay_agent.copy import Copy
from onbelay_agent.errors import AgentCallError, InvalidInput, described
from onbelay_agent.family import Crash, Family, child_outcome
from onbelay_agent.protocol import (
    Begin,
    Begun,
    Cancel,
    Emit,
    Emitted,
    Ended,
    Failure,
    Finish,
    FromHost,
    Go,
    Intent,
    Parked,
    Ready,
    Record,
    Recorded,
    Reopened,
    Suspend,
    ToHost,
)
from onbelay_agent.runlog import RunLog, finished


class MemoryHost:
    """Runs one copy of a run over its log. `suspend`: end the copy at every wait. `replay`: drop it
    as soon as it wants more than was recorded."""

    def __init__(
        self, log: RunLog, family: Family, *, suspend: bool = False, replay: bool = False
    ) -> None:
        self.ended: Ended | None = None
        self.is_quiet = False
        self.is_over = False
        self._log = log
        self._family = family
        self._suspend = suspend
        self._replay = replay
        self._loop = asyncio.get_running_loop()
        self._frames: deque[ToHost] = deque()
        self._calls: dict[str, asyncio.Task[None]] = {}
        log.copies += 1
        self._copy = Copy(log.definition, self, self._loop)
        self._copy.backoff = 0.0

    # ---- Host ------------------------------------------------------------------------------------

    def send(self, frame: ToHost) -> None:
        """Take a frame; it is handled in the next turn of the loop."""
        self._frames.append(frame)
        if len(self._frames) == 1:
            self._loop.call_soon(self._handle_all)

    async def put_blob(self, content: bytes) -> str:
        """Keep bytes."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._log.blobs[sha256] = content
        return sha256

    async def get_blob(self, sha256: str) -> bytes:
        """Bytes kept earlier. Raises KeyError."""
        return self._log.blobs[sha256]

    # ---- RunHost ---------------------------------------------------------------------------------

    def receive(self, frame: FromHost) -> None:
        """A frame for the copy."""
        if isinstance(frame, Recorded) and frame.record.type == "finished":
            self.is_quiet = False
        self._copy.receive(frame)

    def kill(self) -> None:
        """Die, with the copy."""
        self._leave()
        for task in list(self._calls.values()):
            task.cancel()
        self._copy.abandon()

    def _leave(self) -> None:
        self.is_over = self.is_quiet = True
        self._family.notice()

    def _handle_all(self) -> None:
        while self._frames and not self.is_over:
            try:
                self._handle(self._frames[0])
            except Crash:
                self._family.die()
                self.kill()
            except BaseException as error:  # noqa: BLE001 - raised by the family
                self._broken(error)
            self._frames.popleft()

    def _broken(self, error: BaseException) -> None:
        self._family.failed = error
        self._family.notice()

    def _handle(self, frame: ToHost) -> None:
        log, family = self._log, self._family
        match frame:
            case Ended() if self._replay:
                log.ended = self.ended = frame
                self._leave()
            case Begin() | Parked() | Cancel() | Emitted() if self._replay:
                log.ended = Ended(outcome="suspended")
                self.kill()
            case Ready():
                start = replace(
                    log.start,
                    attempt=log.copies,
                    emitted=log.watermarks(),
                    journal=tuple(log.records),
                )
                self._copy.receive(start)
                self._copy.receive(Go())
            case Begin():
                self._begin(frame)
            case Finish():
                log.outcomes[frame.step_id] = (frame.ok_json, frame.failure)
                end = finished(frame.step_id, frame.ok_json, frame.failure, frame.content_sha256)
                self._commit_end(replace(end, stage=frame.stage), frame.emits)
            case Cancel():
                self._cancel(frame.step_ids)
            case Emitted():
                family.commit(log, emits=frame.emits)
            case Parked() if not log.open.keys() >= set(frame.waiting):
                pass  # the end of what it waits for is on its way
            case Parked() if self._suspend:
                log.is_awake = False
                self._copy.receive(Suspend())
            case Parked():
                self.is_quiet = True
                family.notice()
            case Ended():
                family.end(log, frame)
                self.ended = frame
                self._leave()

    # ---- calls -----------------------------------------------------------------------------------

    def _begin(self, frame: Begin) -> None:
        log = self._log
        records = [_started(intent, frame.stage) for intent in frame.intents]
        records += [
            replace(_started(log.open[again.step_id], frame.stage), attempt=again.attempt)
            for again in frame.reopened
        ]
        records += [
            Record(type="cancelled", step_id=intent.id, time_us=0)
            for intent in frame.intents
            if intent.cancelled
        ]
        live = [intent for intent in frame.intents if not intent.cancelled]

        def also() -> Sequence[tuple[RunLog, Record]]:
            ends = [(intent, self._answer(intent)) for intent in live]
            return [(log, finished(i.id, *end)) for i, end in ends if end is not None]

        held = tuple(
            again.step_id
            for again in frame.reopened
            if again.step_id in log.outcomes and self._must_not_repeat(again)
        )
        begun = Begun(stage=frame.stage, held=held)
        again = [log.open[one.step_id] for one in frame.reopened]
        self._family.commit(log, records, frame.emits, intents=frame.intents, also=also, tell=begun)
        for intent in (*again, *live):
            if intent.id in held:
                self._later(intent.id, partial(self._told, intent.id, *log.outcomes[intent.id]))
            elif intent.id in log.open:
                self._do(intent)

    def _must_not_repeat(self, again: Reopened) -> bool:
        intent = self._log.open[again.step_id]
        if intent.kind == "STEP":
            return again.once
        tool = self._family.tools.get(intent.name)
        return intent.kind == "TOOL" and tool is not None and not tool.repeatable

    def _answer(self, intent: Intent) -> tuple[str | None, Failure | None, str] | None:
        """The end of a call that is answered in the commit that records it. None: it waits."""
        log = self._log
        request = json.loads(intent.request_json)
        match intent.kind:
            case "VERSION":
                return str(request["version"]), None, ""
            case "CHILD" if "agent" in request:
                return self._start_child(request)
            case "CHILD":
                child = next(c for c in log.children if c.start.run_id == request["child_run_id"])
                if child.ended is not None:
                    return child_outcome(child.start.run_id, child.ended)
            case "OPERATION" if "name" in request:
                completion = self._family.operations.get(request["name"])
                operation_id = log.operation(len(log.operations) + 1, request, completion)
                opened = {"operation_id": operation_id, "token": f"token of {operation_id}"}
                return json.dumps(opened), None, ""
            case "OPERATION":
                outcome = log.operations[request["operation_id"]].outcome
                if outcome is not None:
                    return (*outcome, "")
            case "MESSAGES" if not request["wait"]:
                return log.next_messages(), None, ""
        return None

    def _start_child(self, request: dict[str, Any]) -> tuple[str | None, Failure | None, str]:
        log, name = self._log, request["agent"]
        if name not in self._family.agents:
            return None, Failure(type="ChildRunFailed", message=f"there is no agent {name!r}"), ""
        run_id = f"{log.start.run_id}.{len(log.children) + 1}"
        self._family.born(log, run_id, request)
        return json.dumps({"child_run_id": run_id}), None, ""

    def _do(self, intent: Intent) -> None:
        log = self._log
        if intent.kind == "STEP":
            log.begin(intent.id)
        elif intent.kind == "TOOL":
            log.begin(intent.id)
            self._later(intent.id, partial(self._call_tool, intent))
        elif intent.kind in ("APPROVAL", "QUESTION"):
            if intent.id not in log.deciders:
                for person in self._family.people:
                    if person.decides(intent.kind):
                        self._family.people.remove(person)
                        log.deciders[intent.id] = person
                        break
        elif intent.kind in ("ARTIFACT_READ", "ARTIFACT_SAVE"):
            self._later(intent.id, partial(self._artifact, intent))

    def _later(self, step_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._calls[step_id] = task = self._loop.create_task(self._guarded(work))
        task.add_done_callback(lambda _: self._calls.pop(step_id, None))

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Crash:
            self._family.die()
            self.kill()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised by the family
            self._broken(error)

    async def _told(self, step_id: str, ok_json: str | None, failure: Failure | None) -> None:
        self._finish(step_id, ok_json, failure)

    async def _call_tool(self, intent: Intent) -> None:
        request = json.loads(intent.request_json)
        tool = self._family.tools.get(intent.name)
        ok_json: str | None = None
        failure: Failure | None = None
        if tool is None:
            failure = Failure(type="ToolDenied", message=f"no tool {intent.name!r} is registered")
        else:
            try:
                async with asyncio.timeout(request["timeout_seconds"]):
                    ok_json = await tool.invoke(json.dumps(request["arguments"]), intent.id)
            except (InvalidInput, AgentCallError) as error:
                failure = Failure(
                    type="ToolFailed", message=f"{intent.name}: {described(error)[1]}"
                )
            except Exception as error:  # noqa: BLE001 - the tool's failure
                text = ": ".join((intent.name, *described(error)))
                failure = Failure(type="ToolFailed", message=text)
        self._log.outcomes[intent.id] = (ok_json, failure)
        self._finish(intent.id, ok_json, failure)

    async def _artifact(self, intent: Intent) -> None:
        log = self._log
        request = json.loads(intent.request_json)
        name = request["name"]
        if intent.kind == "ARTIFACT_SAVE":
            content = log.blobs[request["sha256"]]
        elif name in log.artifacts:
            content = log.artifacts[name]
        else:
            missing = Failure(type="ArtifactFailed", message=f"there is no artifact {name!r}")
            self._finish(intent.id, None, missing)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        described = {
            "artifact_id": f"art_{sha256[:16]}",
            "name": name,
            "size_bytes": len(content),
            "sha256": sha256,
        }
        log.blobs[sha256] = content
        read = sha256 if intent.kind == "ARTIFACT_READ" else ""
        log.artifacts[name] = content
        self._finish(intent.id, json.dumps(described), None, read)

    def _finish(
        self, step_id: str, ok_json: str | None, failure: Failure | None, content_sha256: str = ""
    ) -> None:
        self._commit_end(finished(step_id, ok_json, failure, content_sha256))

    def _commit_end(self, record: Record, emits: Sequence[Emit] = ()) -> None:
        is_open = record.step_id in self._log.open
        self._family.commit(self._log, [record] if is_open else [], emits)

    def _cancel(self, step_ids: Sequence[str]) -> None:
        ids = [step_id for step_id in step_ids if step_id in self._log.open]
        for step_id in ids:
            task = self._calls.pop(step_id, None)
            if task is not None:
                task.cancel()
        records = [Record(type="cancelled", step_id=step_id, time_us=0) for step_id in ids]
        self._family.commit(self._log, records)


def _started(intent: Intent, stage: int) -> Record:
    return Record(
        type="started",
        step_id=intent.id,
        time_us=0,
        kind=intent.kind,
        digest=intent.digest,
        stage=stage,
        cancelled=intent.cancelled,
    )
