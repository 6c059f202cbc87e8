"""Run an agent in a test: no server, no waiting, crashed wherever it can be.

run = TestRun(hello, people=[approve()])
assert run.execute({"name": "Ada"}).output == "Hello Ada"
run.crash_everywhere({"name": "Ada"})
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import json
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from onbelay_agent import values
from onbelay_agent.completion import Completion, completes, expires, fails
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.elsewhere import Message
from onbelay_agent.family import Family
from onbelay_agent.frames import from_plain, to_plain
from onbelay_agent.memory import MemoryHost
from onbelay_agent.people import Person, answer, approve, expire, reject, silence
from onbelay_agent.protocol import Emit, Ended, InputArtifact, Record, Start
from onbelay_agent.runlog import RunLog
from onbelay_agent.tool import ToolDefinition
from onbelay_agent.tool import tool as make_tool

T = TypeVar("T")
_START_US = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True)
class RunError:
    """How a run failed."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class SavedJournal:
    """Everything a run recorded, to be replayed by later code. Round-trips through JSON."""

    start: Start
    records: tuple[Record, ...]
    emits: tuple[Emit, ...]
    blobs: Mapping[str, bytes]

    def to_json(self) -> str:
        """As text to keep beside a test."""
        plain = {
            "start": to_plain(self.start),
            "records": [to_plain(record) for record in self.records],
            "emits": [to_plain(emit) for emit in self.emits],
            "blobs": {key: content.hex() for key, content in self.blobs.items()},
        }
        return json.dumps(plain, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> SavedJournal:
        """What `to_json` wrote."""
        plain = json.loads(text)
        return cls(
            start=from_plain(Start, plain["start"]),
            records=tuple(from_plain(Record, item) for item in plain["records"]),
            emits=tuple(from_plain(Emit, item) for item in plain["emits"]),
            blobs={key: bytes.fromhex(content) for key, content in plain["blobs"].items()},
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run.

    `outcome` is that of protocol.Ended; `replayed` says that the journal of a run that had not
    ended fits. `effects` counts how often the work of each call was begun."""

    outcome: str
    output: Any
    error: RunError | None
    events: tuple[Emit, ...]
    artifacts: Mapping[str, bytes]
    journal: SavedJournal
    effects: Mapping[str, int]
    children: tuple[Result, ...] = ()
    """The runs it started, in that order. One that had not ended when it did was stopped."""

    def texts(self) -> list[str]:
        """The text of every `emit`."""
        return [emit.text for emit in self.events if emit.kind == "text"]


class TestRun:
    """An agent with the tools, people, files and other agents it meets.

    Whenever every run of the test waits, one thing happens: a person decides, else an operation is
    completed, else a message comes, else the next timer fires, at once. Each call that takes
    messages is given the next of `messages`, or all of one that is a list."""

    __test__ = False

    def __init__(
        self,
        agent: AgentDefinition,
        *,
        tools: Sequence[ToolDefinition] | Mapping[str, Callable[..., Any]] = (),
        people: Sequence[Person] = (),
        agents: Sequence[AgentDefinition] = (),
        operations: Mapping[str, Completion] | None = None,
        messages: Sequence[str | Message | Sequence[str | Message]] = (),
        artifacts: Mapping[str, bytes] | None = None,
        env: Mapping[str, str] | None = None,
        session: str = "",
        labels: Mapping[str, str] | None = None,
        seed: str = "test",
    ) -> None:
        self._agent = agent
        if isinstance(tools, Mapping):
            tools = [make_tool(name=name)(function) for name, function in tools.items()]
        self._tools = {tool.name: tool for tool in tools}
        self._people = tuple(people)
        self._agents = {one.name: one for one in (agent, *agents)}
        self._operations = dict(operations or {})
        self._messages = _numbered(messages)
        self._artifacts = dict(artifacts or {})
        self._start = Start(
            run_id="run_test",
            agent=agent.name,
            attempt=1,
            start_us=_START_US,
            input_json="{}",
            seed=seed,
            env=dict(env or {}),
            labels=dict(labels or {}),
            session_id=session,
            input_artifacts=tuple(
                InputArtifact(
                    name=name,
                    artifact_id=f"art_input_{index}",
                    media_type="application/octet-stream",
                    size_bytes=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                )
                for index, (name, content) in enumerate(self._artifacts.items())
            ),
        )

    def execute(self, input: Any = None) -> Result:
        """Run the agent to its end. `input` is a mapping, or the model the agent takes.

        Raises AssertionError when it waits for somebody the test does not have."""
        result, _ = _run(self._execute(input))
        return result

    def crash_everywhere(self, input: Any = None) -> Result:
        """Run once undisturbed, then again with the host killed before and after each commit, and
        once suspended at every wait. Raises AssertionError unless output, error, artifacts and the
        recorded calls are always the same and no recorded effect is ever repeated."""
        baseline, commits = _run(self._execute(input))
        for number in range(commits):
            for when in ("before", "after"):
                result, _ = _run(self._execute(input, crash=(number, when)))
                _compare(baseline, result, f"killed {when} commit {number}")
        result, _ = _run(self._execute(input, suspend=True))
        _compare(baseline, result, "suspended at every wait")
        return baseline

    def replay(self, saved_journal: SavedJournal) -> Result:
        """Replay what an earlier run recorded against the agent's code of now. Nothing is done.

        The outcome is `diverged` when it no longer fits, `replayed` when the recorded run had not
        ended, else what the run came to."""
        log = RunLog(
            self._agent,
            saved_journal.start,
            blobs=dict(saved_journal.blobs),
            records=list(saved_journal.records),
            emits=list(saved_journal.emits),
        )
        return _run(self._replay(log))

    async def _replay(self, log: RunLog) -> Result:
        hosts: list[MemoryHost] = []

        def launch(log: RunLog, family: Family) -> MemoryHost:
            hosts.append(MemoryHost(log, family, replay=True))
            return hosts[-1]

        family = self._family(launch)
        family.logs.append(log)
        await family.run()
        ended = hosts[0].ended
        result = self._result(log, ended)
        return result if ended is not None else dataclasses.replace(result, outcome="replayed")

    async def _execute(
        self, input: Any, *, crash: tuple[int, str] | None = None, suspend: bool = False
    ) -> tuple[Result, int]:
        """The result, and how many commits it took."""
        family = self._family(lambda log, of: MemoryHost(log, of, suspend=suspend))
        family.crash = crash
        start = dataclasses.replace(
            self._start, input_json=values.canonical({} if input is None else input)
        )
        log = RunLog(
            self._agent,
            start,
            artifacts=dict(self._artifacts),
            messages=deque(self._messages),
            now_us=_START_US,
        )
        family.logs.append(log)
        nobody = await family.run()
        if nobody:
            raise AssertionError(f"the run waits for {nobody} and nobody answers")
        for one in family.logs:
            assert not one.repeated, f"recorded effects were repeated: {one.repeated}"
        return self._result(log, log.ended), family.commits

    def _family(self, launch: Callable[[RunLog, Family], MemoryHost]) -> Family:
        return Family(
            launch,
            agents=self._agents,
            tools=self._tools,
            operations=self._operations,
            people=self._people,
        )

    def _result(self, log: RunLog, ended: Ended | None) -> Result:
        output: Any = None
        error: RunError | None = None
        if ended is not None and ended.outcome == "returned":
            text = ended.output_json
            if ended.content_sha256:
                text = log.blobs[ended.content_sha256].decode()
            output = values.decode(text or "null", log.definition.signature.output_adapter)
        elif ended is not None:
            error = RunError(ended.error_type or ended.outcome, ended.message)
        return Result(
            outcome=ended.outcome if ended is not None else "",
            output=output,
            error=error,
            events=tuple(log.emits),
            artifacts={k: v for k, v in log.artifacts.items() if self._artifacts.get(k) != v},
            journal=SavedJournal(log.start, tuple(log.records), tuple(log.emits), dict(log.blobs)),
            effects=dict(log.attempts),
            children=tuple(self._result(child, child.ended) for child in log.children),
        )


def _compare(baseline: Result, result: Result, where: str) -> None:
    for what in ("outcome", "output", "error", "artifacts"):
        expected, found = getattr(baseline, what), getattr(result, what)
        assert expected == found, f"{where}: {what} is {found!r}, undisturbed {expected!r}"
    missing = _started_ids(baseline) ^ _started_ids(result)
    assert not missing, f"{where}: other calls were made: {sorted(missing)}"
    for step_id, count in result.effects.items():
        most = baseline.effects.get(step_id, 0) + 1
        assert count <= most, f"{where}: {step_id} was begun {count} times"
    expected_texts, found_texts = _emitted(baseline), _emitted(result)
    assert expected_texts == found_texts, (
        f"{where}: emits are {found_texts!r}, undisturbed {expected_texts!r}"
    )
    for expected_child, child in zip(baseline.children, result.children, strict=True):
        # How far one came that was stopped because its parent ended is chance.
        if "stopped" not in (expected_child.outcome, child.outcome):
            _compare(expected_child, child, f"{where}: child {child.journal.start.run_id}")


def _numbered(
    messages: Sequence[str | Message | Sequence[str | Message]],
) -> list[list[dict[str, Any]]]:
    """Messages as a host records them, by the call that is given them."""
    numbers = itertools.count(1)
    groups: list[list[dict[str, Any]]] = []
    for entry in messages:
        group = [entry] if isinstance(entry, str | Message) else list(entry)
        groups.append([])
        for one in group:
            said = Message("", "tester", one, None) if isinstance(one, str) else one
            groups[-1].append(
                {
                    "message_id": said.id or f"msg_{next(numbers)}",
                    "sent_by": said.sent_by,
                    "text": said.text,
                    "data": said.data,
                }
            )
    return groups


def _started_ids(result: Result) -> set[str]:
    return {record.step_id for record in result.journal.records if record.type == "started"}


def _emitted(result: Result) -> dict[str, str]:
    """The emits of agent code by their place; those of a step belong to its attempt."""
    return {
        emit.place: f"{emit.kind} {emit.text} {emit.data_json}"
        for emit in result.events
        if "/attempt" not in emit.place
    }


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own, beside a running one if there is one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    results: list[T] = []
    errors: list[BaseException] = []

    def apart() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=apart, name="onbelay test run")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


__all__ = [
    "Result",
    "RunError",
    "SavedJournal",
    "TestRun",
    "answer",
    "approve",
    "completes",
    "expire",
    "expires",
    "fails",
    "reject",
    "silence",
]
