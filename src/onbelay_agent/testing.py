"""Run an agent in a test: no server, no waiting, crashed wherever it can be.

run = TestRun(hello, people=[approve()])
assert run.execute({"name": "Ada"}).output == "Hello Ada"
run.crash_everywhere({"name": "Ada"})
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onbelay_agent import values
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.frames import from_plain, to_plain
from onbelay_agent.memory import MemoryHost
from onbelay_agent.people import Person, answer, approve, expire, reject, silence
from onbelay_agent.protocol import Emit, Ended, InputArtifact, Record, Start
from onbelay_agent.runlog import Crash, RunLog
from onbelay_agent.tool import ToolDefinition
from onbelay_agent.tool import tool as make_tool

_MOST_COPIES = 10_000
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

    def texts(self) -> list[str]:
        """The text of every `emit`."""
        return [emit.text for emit in self.events if emit.kind == "text"]


class TestRun:
    """An agent with the tools, people and files it meets. Timers fire at once, in order."""

    __test__ = False

    def __init__(
        self,
        agent: AgentDefinition,
        *,
        tools: Sequence[ToolDefinition] | Mapping[str, Callable[..., Any]] = (),
        people: Sequence[Person] = (),
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
        return _run(self._execute(self._log(input)))

    def crash_everywhere(self, input: Any = None) -> Result:
        """Run once undisturbed, then again with the host killed before and after each commit, and
        once suspended at every wait. Raises AssertionError unless output, error, artifacts and the
        recorded calls are always the same and no recorded effect is ever repeated."""
        baseline_log = self._log(input)
        baseline = _run(self._execute(baseline_log))
        for number in range(baseline_log.commits):
            for when in ("before", "after"):
                log = self._log(input)
                log.crash = (number, when)
                result = _run(self._execute(log))
                self._compare(baseline, result, log, f"killed {when} commit {number}")
        log = self._log(input)
        result = _run(self._execute(log, suspend=True))
        self._compare(baseline, result, log, "suspended at every wait")
        return baseline

    def replay(self, saved_journal: SavedJournal) -> Result:
        """Replay what an earlier run recorded against the agent's code of now. Nothing is done.

        The outcome is `diverged` when it no longer fits, `replayed` when the recorded run had not
        ended, else what the run came to."""
        log = self._log(None)
        log.start = saved_journal.start
        log.records = list(saved_journal.records)
        log.emits = list(saved_journal.emits)
        log.blobs = dict(saved_journal.blobs)
        return _run(self._replay(log))

    async def _replay(self, log: RunLog) -> Result:
        host = MemoryHost(self._agent, log, replay=True)
        await host.run()
        result = self._result(log, host.ended)
        return result if host.ended is not None else dataclasses.replace(result, outcome="replayed")

    async def _execute(self, log: RunLog, *, suspend: bool = False) -> Result:
        for _ in range(_MOST_COPIES):
            host = MemoryHost(self._agent, log, suspend=suspend)
            await host.run()
            if host.nobody:
                raise AssertionError(f"the run waits for {host.nobody} and nobody answers")
            if host.ended is not None and host.ended.outcome == "suspended":
                try:
                    host.happen()
                except Crash:
                    log.crash = None
                if host.nobody:
                    raise AssertionError(f"the run waits for {host.nobody} and nobody answers")
            elif log.ended is not None:
                return self._result(log, log.ended)
        raise AssertionError(f"the run did not end within {_MOST_COPIES} copies")

    def _log(self, input: Any) -> RunLog:
        start = dataclasses.replace(
            self._start, input_json=values.canonical({} if input is None else input)
        )
        log = RunLog(start, self._tools, deque(self._people), now_us=_START_US)
        log.artifacts = dict(self._artifacts)
        return log

    def _result(self, log: RunLog, ended: Ended | None) -> Result:
        output: Any = None
        error: RunError | None = None
        if ended is not None and ended.outcome == "returned":
            text = ended.output_json
            if ended.content_sha256:
                text = log.blobs[ended.content_sha256].decode()
            output = values.decode(text or "null", self._agent.signature.output_adapter)
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
        )

    def _compare(self, baseline: Result, result: Result, log: RunLog, where: str) -> None:
        assert not log.repeated, f"{where}: recorded effects were repeated: {log.repeated}"
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


def _started_ids(result: Result) -> set[str]:
    return {record.step_id for record in result.journal.records if record.type == "started"}


def _emitted(result: Result) -> dict[str, str]:
    """The emits of agent code by their place; those of a step belong to its attempt."""
    return {
        emit.place: f"{emit.kind} {emit.text} {emit.data_json}"
        for emit in result.events
        if "/attempt" not in emit.place
    }


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run on a loop of its own, beside a running one if there is one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    results: list[Result] = []
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
    "expire",
    "reject",
    "silence",
]
