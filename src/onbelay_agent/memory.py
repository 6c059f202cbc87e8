"""A host in memory: runs copies over a RunLog, for `onbelay_agent.testing`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onbelay_agent.copy import Copy
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.errors import AgentCallError, InvalidInput
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
    Reopened,
    Suspend,
    ToHost,
)
from onbelay_agent.runlog import Crash, RunLog


class MemoryHost:
    """Runs one copy of a run over its log. `suspend`: end the copy at every wait. `replay`: drop it
    as soon as it wants more than was recorded."""

    def __init__(
        self,
        definition: AgentDefinition,
        log: RunLog,
        *,
        suspend: bool = False,
        replay: bool = False,
    ) -> None:
        self.ended: Ended | None = None
        self.crashed = False
        self.nobody: str = ""
        """The wait that nothing in the test answers."""
        self._log = log
        self._suspend = suspend
        self._replay = replay
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._frames: deque[ToHost] = deque()
        self._calls: dict[str, asyncio.Task[None]] = {}
        log.copies += 1
        self._copy = Copy(definition, self, self._loop)
        self._copy.backoff = 0.0

    async def run(self) -> None:
        """Until the copy ended or the host died."""
        try:
            await self._over
        finally:
            for task in self._calls.values():
                task.cancel()
            if self.crashed:
                self._copy.abandon()
                await asyncio.sleep(0)

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

    def _handle_all(self) -> None:
        while self._frames and not self._over.done():
            try:
                self._handle(self._frames[0])
            except Crash:
                self._die()
            except BaseException as error:  # noqa: BLE001 - raised by run()
                self._over.set_exception(error)
            self._frames.popleft()

    def _die(self) -> None:
        self.crashed = True
        self._log.crash = None
        if not self._over.done():
            self._over.set_result(None)

    def _handle(self, frame: ToHost) -> None:
        log = self._log
        match frame:
            case Ended() if self._replay:
                self.ended = frame
                self._over.set_result(None)
            case Begin() | Parked() | Cancel() | Emitted() if self._replay:
                self._copy.abandon()
                self._over.set_result(None)
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
                record = Record(
                    type="finished",
                    step_id=frame.step_id,
                    time_us=0,
                    stage=frame.stage,
                    ok_json=frame.ok_json,
                    failure=frame.failure,
                    content_sha256=frame.content_sha256,
                )
                self._commit_end(record, frame.emits)
            case Cancel():
                self._cancel(frame.step_ids)
            case Emitted():
                log.commit(emits=frame.emits)
            case Parked():
                self._parked()
            case Ended():
                log.commit(emits=frame.emits, ended=frame)
                self.ended = frame
                self._over.set_result(None)

    # ---- calls -----------------------------------------------------------------------------------

    def _begin(self, frame: Begin) -> None:
        log = self._log
        records = [_started(intent, frame.stage) for intent in frame.intents]
        records += [_reopened(log.open[again.step_id], again, frame) for again in frame.reopened]
        records += [
            Record(type="cancelled", step_id=intent.id, time_us=0)
            for intent in frame.intents
            if intent.cancelled
        ]
        for intent in frame.intents:
            if not intent.cancelled:
                log.open[intent.id] = intent
        try:
            log.commit(records, frame.emits)
        except Crash:
            recorded = {record.step_id for record in log.records}
            log.open = {key: value for key, value in log.open.items() if key in recorded}
            raise
        held: list[str] = []
        again_ids = {again.step_id: again for again in frame.reopened}
        live = [intent for intent in frame.intents if not intent.cancelled]
        for intent in (*[log.open[step_id] for step_id in again_ids], *live):
            again = again_ids.get(intent.id)
            known = log.outcomes.get(intent.id)
            if again is not None and known is not None and self._must_not_repeat(intent, again):
                held.append(intent.id)
                self._later(intent.id, self._told(intent.id, *known))
            else:
                self._do(intent)
        self._copy.receive(Begun(stage=frame.stage, held=tuple(held)))

    def _must_not_repeat(self, intent: Intent, again: Reopened) -> bool:
        if intent.kind == "STEP":
            return again.once
        tool = self._log.tools.get(intent.name)
        return intent.kind == "TOOL" and tool is not None and not tool.repeatable

    def _do(self, intent: Intent) -> None:
        log = self._log
        if intent.kind == "STEP":
            log.begin(intent.id)
        elif intent.kind == "TOOL":
            log.begin(intent.id)
            self._later(intent.id, self._call_tool(intent))
        elif intent.kind in ("APPROVAL", "QUESTION"):
            if intent.id not in log.deciders:
                for person in log.people:
                    if person.decides(intent.kind):
                        log.people.remove(person)
                        log.deciders[intent.id] = person
                        break
        elif intent.kind in ("ARTIFACT_READ", "ARTIFACT_SAVE"):
            self._later(intent.id, self._artifact(intent))

    def _later(self, step_id: str, work: Any) -> None:
        self._calls[step_id] = task = self._loop.create_task(self._guarded(work))
        task.add_done_callback(lambda _: self._calls.pop(step_id, None))

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except Crash:
            self._die()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised by run()
            if not self._over.done():
                self._over.set_exception(error)

    async def _told(self, step_id: str, ok_json: str | None, failure: Failure | None) -> None:
        self._finish(step_id, ok_json, failure)

    async def _call_tool(self, intent: Intent) -> None:
        request = json.loads(intent.request_json)
        tool = self._log.tools.get(intent.name)
        ok_json: str | None = None
        failure: Failure | None = None
        if tool is None:
            failure = Failure(type="ToolDenied", message=f"no tool {intent.name!r} is registered")
        else:
            try:
                async with asyncio.timeout(request["timeout_seconds"]):
                    ok_json = await tool.invoke(json.dumps(request["arguments"]), intent.id)
            except (InvalidInput, AgentCallError) as error:
                failure = Failure(type="ToolFailed", message=f"{intent.name}: {error}")
            except Exception as error:  # noqa: BLE001 - the tool's failure
                text = f"{intent.name}: {type(error).__name__}: {error}"
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
        self._commit_end(
            Record(
                type="finished",
                step_id=step_id,
                time_us=0,
                ok_json=ok_json,
                failure=failure,
                content_sha256=content_sha256,
            )
        )

    def _commit_end(self, record: Record, emits: Sequence[Emit] = ()) -> None:
        if record.step_id not in self._log.open:
            self._log.commit(emits=emits)
            return
        for stamped in self._log.commit([record], emits):
            self._copy.receive(Recorded(record=stamped))

    def _cancel(self, step_ids: Sequence[str]) -> None:
        ids = [step_id for step_id in step_ids if step_id in self._log.open]
        for step_id in ids:
            task = self._calls.pop(step_id, None)
            if task is not None:
                task.cancel()
        records = [Record(type="cancelled", step_id=step_id, time_us=0) for step_id in ids]
        for stamped in self._log.commit(records):
            self._copy.receive(Recorded(record=stamped))

    def _parked(self) -> None:
        if self._suspend:
            self._copy.receive(Suspend())
        else:
            self.happen()

    def happen(self) -> None:
        """Let the next thing happen to the waiting run. Raises Crash."""
        due = self._log.due()
        if due is None:
            self.nobody = ", ".join(self._log.open)
            self._over.set_result(None)
            self._copy.abandon()
        else:
            self._finish(*due)


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


def _reopened(intent: Intent, again: Reopened, frame: Begin) -> Record:
    return replace(_started(intent, frame.stage), attempt=again.attempt)
