"""The runs of one test: an agent's, its children's, and what they all meet."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from onbelay_agent.completion import Completion
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.people import Person
from onbelay_agent.protocol import Emit, Ended, Failure, FromHost, Intent, Record, Recorded
from onbelay_agent.runlog import Due, RunLog, finished
from onbelay_agent.tool import ToolDefinition

_MOST_ROUNDS = 100_000


class Crash(BaseException):
    """The host dies here."""


class RunHost(Protocol):
    """What keeps one copy of a run."""

    is_quiet: bool
    """Its copy is parked or over."""
    is_over: bool

    def receive(self, frame: FromHost) -> None:
        """For its copy."""

    def kill(self) -> None:
        """Die, with the copy."""


class Family:
    """Commits for all of them, kills them together, and lets things happen when all wait."""

    def __init__(
        self,
        launch: Callable[[RunLog, Family], RunHost],
        *,
        agents: Mapping[str, AgentDefinition],
        tools: Mapping[str, ToolDefinition],
        operations: Mapping[str, Completion],
        people: Sequence[Person],
    ) -> None:
        self.agents = agents
        self.tools = tools
        self.operations = operations
        self.people = deque(people)
        self.logs: list[RunLog] = []
        """In the order the runs were started; the first is the root."""
        self.commits = 0
        self.crash: tuple[int, str] | None = None
        """Die `before` or `after` the commit with this number."""
        self.failed: BaseException | None = None
        self._launch = launch
        self._hosts: dict[RunLog, RunHost] = {}
        self._changed = asyncio.Event()
        self._dead = False

    # ---- committing ------------------------------------------------------------------------------

    def commit(
        self,
        log: RunLog,
        records: Sequence[Record] = (),
        emits: Sequence[Emit] = (),
        *,
        intents: Sequence[Intent] = (),
        also: Callable[[], Sequence[tuple[RunLog, Record]]] | None = None,
        tell: FromHost | None = None,
    ) -> None:
        """Append all of it or, when this is where the host dies, nothing. Raises Crash.

        `also` makes further changes of the same commit and names records of other runs; `tell` is
        for the run's copy, before the records."""
        number, self.commits = self.commits, self.commits + 1
        if self.crash == (number, "before"):
            raise Crash
        told = [(log, record) for record in log.add(records, emits, intents)]
        for other, record in also() if also is not None else ():
            told += [(other, stamped) for stamped in other.add([record])]
        if self.crash == (number, "after"):
            raise Crash
        if tell is not None and log in self._hosts:
            self._hosts[log].receive(tell)
        for whose, record in told:
            if record.type != "started" and whose in self._hosts:
                self._hosts[whose].receive(Recorded(record=record))

    def end(self, log: RunLog, ended: Ended) -> None:
        """A copy ended: unless it was only suspended, so has its run. Raises Crash."""

        def also() -> Sequence[tuple[RunLog, Record]]:
            if ended.outcome == "suspended":
                return ()
            log.ended = ended
            for other in log.descendants():
                if other.ended is None:
                    other.ended = Ended(outcome="stopped")
            return self._told_parent(log, ended)

        self.commit(log, emits=ended.emits, also=also)
        for other in log.descendants():
            host = self._hosts.pop(other, None) if other.ended is not None else None
            if host is not None:
                host.kill()
        self.notice()

    def _told_parent(self, log: RunLog, ended: Ended) -> Sequence[tuple[RunLog, Record]]:
        parent, run_id = log.parent, log.start.run_id
        if parent is None:
            return ()
        parent.now_us = max(parent.now_us, log.now_us)
        waits = parent.waits_for("CHILD", "child_run_id", run_id)
        return [(parent, finished(step_id, *child_outcome(run_id, ended))) for step_id in waits]

    def born(self, parent: RunLog, run_id: str, request: dict[str, Any]) -> None:
        """A child run exists. Its copy starts soon."""
        start = dataclasses.replace(
            parent.start,
            run_id=run_id,
            agent=request["agent"],
            start_us=parent.now_us,
            input_json=request["input_json"],
            seed=f"{parent.start.seed}/{run_id}",
            input_artifacts=(),
            emitted={},
            journal=(),
        )
        definition = self.agents[request["agent"]]
        child = RunLog(definition, start, parent, parent.blobs, now_us=parent.now_us)
        parent.children.append(child)
        self.logs.append(child)
        self.notice()

    # ---- running ---------------------------------------------------------------------------------

    async def run(self) -> str:
        """Until the root ends. Returns what it waits for when nothing answers that, or nothing."""
        try:
            for _ in range(_MOST_ROUNDS):
                self._launch_awake()
                while not self._dead and not all(h.is_quiet for h in self._hosts.values()):
                    await self._changed.wait()
                    self._changed.clear()
                    if self.failed is not None:
                        raise self.failed
                    self._launch_awake()
                if self._dead:
                    self._bury()
                    await asyncio.sleep(0)
                elif self.logs[0].ended is not None:
                    return ""
                elif not any(log.is_awake for log in self._alive() if log not in self._hosts):
                    waits = self._happen()
                    if waits:
                        return waits
        finally:
            self._bury()
            await asyncio.sleep(0)
        raise AssertionError(f"the run did not end within {_MOST_ROUNDS} rounds")

    def notice(self) -> None:
        """Something has changed."""
        self._changed.set()

    def die(self) -> None:
        """The host process is gone, with every copy."""
        self._dead = True
        self.crash = None
        self.notice()

    def _alive(self) -> list[RunLog]:
        return [log for log in self.logs if log.ended is None]

    def _launch_awake(self) -> None:
        self._hosts = {log: host for log, host in self._hosts.items() if not host.is_over}
        for log in self._alive() if not self._dead else ():
            if log.is_awake and log not in self._hosts:
                log.is_awake = False
                self._hosts[log] = self._launch(log, self)

    def _bury(self) -> None:
        hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            host.kill()
        for log in self.logs:
            log.is_awake = True
        self._dead = False

    def _happen(self) -> str:
        """Let the next thing happen; what everybody waits for when there is nothing."""
        found = next(
            ((log, due) for log in self._alive() if (due := log.due_at_once()) is not None), None
        )
        if found is None:
            later = [(log, due) for log in self._alive() if (due := log.due_later()) is not None]
            found = min(later, key=lambda one: one[1].time_us or 0, default=None)
        if found is None:
            waits = [step_id for log in self._alive() for step_id in log.open]
            return ", ".join(waits) or "nothing that was recorded"
        try:
            self._commit_due(*found)
        except Crash:
            self.die()
        return ""

    def _commit_due(self, log: RunLog, due: Due) -> None:
        def also() -> Sequence[tuple[RunLog, Record]]:
            if due.time_us is not None:
                log.now_us = max(log.now_us, due.time_us)
            if due.operation is not None:
                return [(log, record) for record in log.complete(due.operation)]
            ok_json = due.ok_json
            if log.open[due.step_id].kind == "MESSAGES":
                while not log.messages[0]:
                    log.messages.popleft()
                ok_json = log.next_messages()
            return [(log, finished(due.step_id, ok_json, due.failure))]

        self.commit(log, also=also)


def child_outcome(run_id: str, ended: Ended) -> tuple[str | None, Failure | None, str]:
    """What a parent is told of a child run that has ended."""
    if ended.outcome == "returned":
        return ended.output_json, None, ended.content_sha256
    message = f"{ended.error_type}: {ended.message}" if ended.error_type else ended.message
    reason = {"raised": "AGENT_ERROR", "stuck": "STUCK", "diverged": "DIVERGED"}.get(ended.outcome)
    state = "STOPPED" if ended.outcome == "stopped" else "FAILED"
    data = {"child_run_id": run_id, "state": state, "reason": reason or ""}
    failure = Failure(type="ChildRunFailed", message=message, data_json=json.dumps(data))
    return None, failure, ""
