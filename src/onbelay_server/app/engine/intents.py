"""What an agent's calls come to in the store: the one place that knows every kind of call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onbelay_agent.protocol import Begin, Intent, Reopened
from onbelay_server.app.engine.asking import Asking
from onbelay_server.app.engine.batch import Batch
from onbelay_server.app.engine.effects import Effects
from onbelay_server.app.engine.files import Files
from onbelay_server.app.engine.outside import Outside
from onbelay_server.app.engine.relatives import Relatives
from onbelay_server.app.schema import schema_violations
from onbelay_server.domain.change import Rows
from onbelay_server.domain.event import StepCancelled, StepError, StepFinished, StepStarted
from onbelay_server.domain.run import Wait
from onbelay_server.domain.state import StepKind
from onbelay_server.domain.waiting import LAST_US


@dataclass(slots=True)
class Needs:
    """The rows that calls look at beyond their own run's."""

    runs: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    tree: bool = False
    open_rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Intents:
    """Writes the calls of one run's agent. Pure: chance comes in as `entropy`, 10 bytes a call."""

    asking: Asking
    effects: Effects
    files: Files
    outside: Outside
    relatives: Relatives
    _refused: dict[str, str] = field(default_factory=dict)
    """Calls that cannot be asked as they are, and why."""

    def needs(self, begins: Sequence[Begin]) -> Needs:
        """What must be read for these calls."""
        needs = Needs()
        for begin in begins:
            needs.open_rows |= bool(begin.reopened)
            for intent in begin.intents:
                if intent.kind not in ("CHILD", "OPERATION", "MESSAGES"):
                    continue
                request = json.loads(intent.request_json)
                needs.tree |= "agent" in request
                needs.open_rows |= intent.kind == "MESSAGES"
                needs.runs += _named(request, "child_run_id")
                needs.operations += _named(request, "operation_id")
        return needs

    async def prepare(self, begins: Sequence[Begin]) -> None:
        """Look up what a decision cannot: the agents of children, and whether a schema is one."""
        intents = [intent for begin in begins for intent in begin.intents]
        children = [intent for intent in intents if intent.kind == "CHILD"]
        if children:
            await self.relatives.prepare(children)
        for intent in intents:
            if intent.kind in ("QUESTION", "OPERATION"):
                schema = json.loads(intent.request_json).get("schema")
                if schema and (found := schema_violations(json.dumps(schema), "schema")):
                    self._refused[intent.id] = found[0].description

    def begin(
        self, batch: Batch, intent: Intent, stage: int, rows: Rows, entropy: bytes, now_us: int
    ) -> None:
        """Record that a call was asked, and what follows from it at once."""
        started = StepStarted(
            kind=StepKind(intent.kind),
            name=intent.name,
            digest=intent.digest,
            stage=stage,
            request_json=intent.request_json,
            cancelled=intent.cancelled,
        )
        batch.add(started, intent.id)
        if intent.cancelled:
            batch.add(StepCancelled(), intent.id)
            return
        request, step_id = json.loads(intent.request_json), intent.id
        if why := self._refused.get(step_id):
            error = StepError(type="SchemaRefused", message=f"its schema cannot be used: {why}")
            batch.add(StepFinished(error=error), step_id)
            return
        match intent.kind:
            case "STEP":
                pass
            case "TOOL":
                self.effects.call(batch, step_id, request)
            case "APPROVAL":
                self.asking.approval(batch, step_id, request, entropy, now_us)
            case "QUESTION":
                self.asking.question(batch, step_id, request, entropy, now_us)
            case "TIMER":
                batch.put.append(
                    Wait(
                        run_id=batch.run_id,
                        step_id=step_id,
                        kind=StepKind.TIMER,
                        since_us=now_us,
                        until_us=min(int(request["due_us"]), LAST_US),
                    )
                )
            case "ARTIFACT_READ":
                self.files.read(batch, step_id, request["name"])
            case "ARTIFACT_SAVE":
                self.files.save(batch, step_id, request, entropy, now_us)
            case "CHILD" if "agent" in request:
                self.relatives.start(batch, step_id, request, rows, entropy, now_us)
            case "CHILD":
                self.relatives.wait(batch, step_id, request["child_run_id"], rows, now_us)
            case "OPERATION" if "name" in request:
                self.outside.open_operation(batch, step_id, request, entropy, now_us)
            case "OPERATION":
                self.outside.await_operation(batch, step_id, request["operation_id"], rows, now_us)
            case "MESSAGES":
                self.outside.messages(batch, step_id, request, rows, now_us)
            case "VERSION":
                batch.add(StepFinished(result_json=str(int(request["version"]))), step_id)
            case "MODEL":
                raise ValueError("this version has no model calls")

    def reopen(
        self,
        batch: Batch,
        again: Reopened,
        kind: str,
        request_json: str,
        entropy: bytes,
        now_us: int,
    ) -> bool:
        """A call whose outcome is unknown is asked again: repeat it, or let a person decide.

        True when the copy must not run it itself."""
        if not self.effects.may_repeat(again, kind, request_json):
            self.asking.outcome(batch, again, StepKind(kind), entropy, now_us)
            return True
        if kind in ("STEP", "TOOL"):
            self.effects.again(batch, again, kind, request_json)
        return False


def is_once(intent: Intent) -> bool:
    """Whether it is a step whose author forbids to run it again when its outcome is unknown."""
    return intent.kind == "STEP" and json.loads(intent.request_json).get("once", False) is True


def _named(request: Mapping[str, object], key: str) -> list[str]:
    value = request.get(key)
    return [value] if isinstance(value, str) else []
