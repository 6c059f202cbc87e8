"""Frames that are JSON of the right shape and still nothing a copy may say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onbelay_agent.frames import BrokenFrame
from onbelay_agent.protocol import (
    Begin,
    Emit,
    Emitted,
    Ended,
    Failure,
    Finish,
    Intent,
    Pulse,
    Ready,
    Record,
    Reopened,
    ToHost,
)
from onbelay_server.adapters.harness.vetting import Vetting

KEPT, FOREIGN = "a" * 64, "b" * 64


def intent(kind: str = "STEP", request: object = None, **fields: Any) -> Intent:
    request_json = json.dumps({"once": False} if request is None else request)
    values = {"id": "main:x#1", "name": "x", "digest": "0" * 64, "request_json": request_json}
    return Intent(kind=kind, **(values | fields))  # type: ignore[arg-type]


def begin(*intents: Intent, stage: int = 0) -> Begin:
    return Begin(stage=stage, intents=intents)


def emitted(**fields: Any) -> Emitted:
    values: dict[str, Any] = {"place": "main:emit#1", "kind": "text"}
    return Emitted(emits=(Emit(**(values | fields)),))


def finish(**fields: Any) -> Finish:
    values: dict[str, Any] = {"step_id": "begun", "stage": 0, "ok_json": "1"}
    return Finish(**(values | fields))


def vetting() -> Vetting:
    begun = [
        Record(type="started", step_id="begun", time_us=0, kind="STEP"),
        Record(type="started", step_id="asked", time_us=0, kind="APPROVAL"),
    ]
    made = Vetting(begun)
    made.kept.add(KEPT)
    return made


ALLOWED: list[ToHost] = [
    Ready(protocol=1, python="3.12", fingerprint="0" * 64),
    Pulse(),
    emitted(text="words\n", data_json="null"),
    emitted(kind="progress", done=1, total=2.5),
    begin(intent()),
    begin(intent("TOOL", {"tool": "t", "arguments": {}, "timeout_seconds": None})),
    begin(intent("APPROVAL", {"title": "t", "body": "b", "evidence": [1]})),
    begin(intent("QUESTION", {"question": "q", "schema": {"type": "string"}})),
    begin(intent("TIMER", {"due_us": 10**30})),
    begin(intent("CHILD", {"agent": "a", "input_json": "{}"})),
    begin(intent("CHILD", {"child_run_id": "run_1"})),
    begin(intent("OPERATION", {"name": "o", "schema": None, "expires_seconds": 1.5})),
    begin(intent("OPERATION", {"operation_id": "op_1"})),
    begin(intent("MESSAGES", {"wait": True})),
    begin(intent("VERSION", {"version": 2})),
    begin(intent("ARTIFACT_READ", {"name": "a"})),
    begin(intent("ARTIFACT_SAVE", {"name": "a", "media_type": "", "sha256": KEPT})),
    Begin(stage=0, reopened=(Reopened(step_id="begun", attempt=2, once=True),)),
    finish(),
    finish(ok_json=None, content_sha256=KEPT),
    finish(ok_json=None, failure=Failure(type="StepFailed", message="no")),
    Ended(outcome="returned", output_json="null"),
    Ended(outcome="raised", error_type="ValueError", message="no"),
    Ended(outcome="stopped"),
]

REFUSED: dict[str, ToHost] = {
    "another protocol": Ready(protocol=2, python="3.12", fingerprint=""),
    "a Python that is none": Ready(protocol=1, python="abc", fingerprint=""),
    "an emit without a place": emitted(place="nowhere"),
    "an emit without an ordinal": emitted(place="main:emit#one"),
    "an emit of no kind": emitted(kind="shout"),
    "a log of no level": emitted(kind="log", level="LOUD"),
    "progress in words": emitted(kind="progress", done="half"),
    "progress without end": emitted(kind="progress", done=float("inf")),
    "a report that is no JSON": emitted(kind="report", data_json="{"),
    "a negative stage": begin(intent(), stage=-1),
    "a stage past all": begin(intent(), stage=2**70),
    "a call of no kind": begin(intent("MAGIC")),
    "a call not built": begin(intent("MODEL", {})),
    "a call without an id": begin(intent(id="")),
    "a call in an emit's place": begin(intent(id="main:emit#1")),
    "an endless id": begin(intent(id="x" * 100_000)),
    "a digest that is none": begin(intent(digest="d")),
    "a request that is no JSON": begin(intent(request_json="{")),
    "a request that is a list": begin(intent(request=[])),
    "a request nested too deep": begin(intent(request_json="[" * 100_000 + "]" * 100_000)),
    "the same call twice": begin(intent(), intent()),
    "a call of the journal": begin(intent(id="begun")),
    "a tool without a name": begin(intent("TOOL", {"arguments": {}})),
    "a tool whose name is a number": begin(intent("TOOL", {"tool": 5, "arguments": {}})),
    "a timeout in words": begin(
        intent("TOOL", {"tool": "t", "arguments": 1, "timeout_seconds": "x"})
    ),
    "an approval without a title": begin(intent("APPROVAL", {})),
    "a title that is a number": begin(intent("APPROVAL", {"title": 5})),
    "a schema in words": begin(intent("QUESTION", {"question": "q", "schema": "x"})),
    "a timer without a time": begin(intent("TIMER", {"due_us": "soon"})),
    "a child without an input": begin(intent("CHILD", {"agent": "a"})),
    "a child whose input is no JSON": begin(intent("CHILD", {"agent": "a", "input_json": "{"})),
    "a child named by a list": begin(intent("CHILD", {"child_run_id": []})),
    "an operation without a name": begin(intent("OPERATION", {})),
    "a version in words": begin(intent("VERSION", {"version": "new"})),
    "a file that was not put": begin(
        intent("ARTIFACT_SAVE", {"name": "a", "media_type": "", "sha256": FOREIGN})
    ),
    "a call never asked, again": Begin(
        stage=0, reopened=(Reopened(step_id="nothing", attempt=2, once=False),)
    ),
    "the end of nothing": finish(step_id="nothing"),
    "the end of what a person decides": finish(step_id="asked", ok_json='{"by":"user:ada"}'),
    "an end without a result": finish(ok_json=None),
    "an end that is no JSON": finish(ok_json="{"),
    "an end that is not a number": finish(ok_json="NaN"),
    "an end that is too large": finish(ok_json='"' + "x" * 300_000 + '"'),
    "the bytes of others": finish(ok_json=None, content_sha256=FOREIGN),
    "a negative duration": finish(duration_us=-1),
    "an endless failure": finish(ok_json=None, failure=Failure(type="E", message="m" * 900_000)),
    "an outcome of no kind": Ended(outcome="won"),  # type: ignore[arg-type]
    "nothing returned": Ended(outcome="returned"),
    "an output that is no JSON": Ended(outcome="returned", output_json="{"),
    "an output that is others'": Ended(outcome="returned", content_sha256=FOREIGN),
    "endless names": Ended(outcome="stopped", abandoned=("x" * 100_000,)),
}


@pytest.mark.parametrize("frame", ALLOWED, ids=lambda frame: type(frame).__name__)
def test_what_a_copy_says_passes(frame: ToHost) -> None:
    vetting().vet(frame)


@pytest.mark.parametrize("frame", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_copy_says_is_refused(frame: ToHost) -> None:
    with pytest.raises(BrokenFrame):
        vetting().vet(frame)


def test_a_call_begun_may_be_finished_and_not_begun_again() -> None:
    vetted = vetting()
    vetted.vet(begin(intent()))
    vetted.vet(finish(step_id="main:x#1"))
    with pytest.raises(BrokenFrame):
        vetted.vet(begin(intent()))
