"""The rows one transaction works on: what was read, overlaid with what its units have changed.

Units of one transaction decide one after another on the same set, so that a later unit sees what an
earlier one did. A unit that refuses leaves the set as it found it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from operator import attrgetter
from typing import Any

from onbelay_server.adapters.changes import Changes, EventRows
from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, EncodedEvents, Entity
from onbelay_server.domain.message import Message
from onbelay_server.domain.operation import Operation, OperationState
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import ApprovalState
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import (
    LONG_LOG_EVENTS,
    MAX_FRAME_EVENTS,
    Appended,
    StoredEvent,
)

MOST_GONE_EVENTS = 2_000
"""That one transaction deletes: what is beyond goes later, so that nobody waits for it."""


class NotNamed(RuntimeError):
    """A decision asked for, or wrote to, a row that its Reads do not name: a bug of the caller."""


class Conflict(Exception):
    """A key that must be new, or unique, is taken."""


class WorkingSet:
    """Rows by key, with the indexes that the set reads of a decision need.

    A key mapped to None, or to nothing, is absent: whoever loads the set reads all that is named.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run | None] = {}
        self.whole: set[str] = set()
        """Runs of which all that is open was taken up."""
        self.trees: dict[str, dict[str, None]] = {}
        self.waits: dict[str, dict[str, Wait]] = {}
        self.approvals: dict[str, Approval | None] = {}
        self.pending: dict[str, dict[str, None]] = {}
        self.operations: dict[str, Operation | None] = {}
        self.opened: dict[str, dict[str, None]] = {}
        self.messages: dict[str, dict[str, Message]] = {}
        self.artifacts: dict[str, Artifact | None] = {}
        self.saved: dict[str, dict[str, None]] = {}
        self.agents: dict[str, Agent | None] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.revisions: dict[tuple[str, int], AgentRevision | None] = {}
        self.requests: dict[RequestKey, Request | None] = {}
        self.changes = Changes()

    def add(self, rows: Iterable[Entity]) -> None:
        """Take up rows as they are stored."""
        for row in rows:
            self._take(row)

    def apply(self, change: Change[Any], now_us: int, codec: EventCodec) -> dict[str, Appended]:
        """Carry out a decision; per run it wrote to, the row after it and its events.

        Raises NotNamed, Conflict, or what the codec raises, and has changed nothing then.
        """
        self._check_keys(change)
        put = {row.id: row for row in change.put if isinstance(row, Run)}
        appended = self._advance(change, put, now_us, codec)
        written = self.changes
        for run_id, after in appended.items():
            run = after.run
            before = self.runs.get(run_id)
            if before is None or run_id in written.runs.new:
                written.runs.new[run_id] = run
            elif run_id in put or run_id in written.runs.changed:
                written.runs.changed[run_id] = run
                written.advanced.pop(run_id, None)
                if _FOUND_BY(before) != _FOUND_BY(run):
                    written.moved.add(run_id)
            else:
                written.advanced[run_id] = run
            self._take(run)
            if after.events:
                if _wants_sealing(before, run):
                    written.long.add(run_id)
                written.events.append(EventRows(run_id, run.epoch, run.update_us, after.events))
        for row in change.put:
            if not isinstance(row, Run):
                self._record(row)
                self._take(row)
        for gone in change.delete:
            self._drop(gone)
        return appended

    def _advance(
        self, change: Change[Any], put: Mapping[str, Run], now_us: int, codec: EventCodec
    ) -> dict[str, Appended]:
        logs: dict[str, tuple[list[int], list[bytes]]] = {run_id: ([], []) for run_id in put}
        for event in change.events:
            log = logs.get(event.run_id)
            if log is None:
                log = logs[event.run_id] = ([], [])
            kinds, bodies = log
            if isinstance(event, EncodedEvents):
                if len(event.kinds) != len(event.bodies):
                    raise ValueError("as many kinds as bodies are needed")
                kinds += event.kinds
                bodies += event.bodies
            else:
                kinds.append(codec.kind(event.payload))
                bodies.append(codec.encode(event.run_id, event.step_id, event.payload))
        appended: dict[str, Appended] = {}
        for run_id, (kinds, bodies) in logs.items():
            before = self.runs.get(run_id)
            row = put.get(run_id, before)
            if row is None:
                raise NotNamed(f"events of run {run_id}, which is neither read nor put")
            last = before.last_sequence if before is not None else 0
            floor = before.update_us if before is not None else row.update_us
            time_us = max(now_us, floor)
            events: tuple[StoredEvent, ...] = ()
            if bodies:
                stamped = codec.stamp_all(bodies, last + 1, time_us, row.epoch)
                events = tuple(map(StoredEvent, count(last + 1), kinds, stamped))
            appended[run_id] = Appended(_advanced(row, last + len(events), time_us), events)
        return appended

    def _check_keys(self, change: Change[Any]) -> None:
        for row in change.put:
            if isinstance(row, Request):
                if self.requests.get(row.key) is not None:
                    raise Conflict(f"request {row.key.request_id} is remembered already")
            elif isinstance(row, Message):
                if row.id in self.messages.get(row.run_id, {}):
                    raise Conflict(f"message {row.id} is waiting already")
            elif isinstance(row, AgentRevision):
                if self.revisions.get((row.agent_id, row.revision)) is not None:
                    raise Conflict(f"revision {row.revision} of {row.agent_id} exists")
            elif isinstance(row, Agent):
                holder = self.names.get((row.tenant, row.name), row.id)
                if row.delete_us is None and holder != row.id:
                    raise Conflict(f"an agent named {row.name} exists")

    def _record(self, row: Entity) -> None:
        written = self.changes
        if isinstance(row, Wait | Approval | Operation | Message):
            written.touched.add(row.run_id)
        if isinstance(row, Wait):
            # Waits are written by upsert: whether one exists need not be known.
            written.waits.put((row.run_id, row.step_id), row, exists=False)
        elif isinstance(row, Approval):
            written.approvals.put(row.id, row, exists=self.approvals.get(row.id) is not None)
        elif isinstance(row, Operation):
            # By upsert as well: an intent may be recorded anew.
            written.operations.put(row.id, row, exists=False)
        elif isinstance(row, Message):
            written.messages.put(row.id, row, exists=False)
        elif isinstance(row, Artifact):
            written.artifacts.put(row.id, row, exists=self.artifacts.get(row.id) is not None)
        elif isinstance(row, Agent):
            written.agents.put(row.id, row, exists=self.agents.get(row.id) is not None)
        elif isinstance(row, AgentRevision):
            written.revisions.put((row.agent_id, row.revision), row, exists=False)
        elif isinstance(row, Request):
            written.requests.put(row.key, row, exists=False)

    def _take(self, row: Entity) -> None:
        if isinstance(row, Run):
            self.runs[row.id] = row
            self.trees.setdefault(row.root_id, {})[row.id] = None
        elif isinstance(row, Wait):
            self.waits.setdefault(row.run_id, {})[row.step_id] = row
        elif isinstance(row, Approval):
            self.approvals[row.id] = row
            of_run = self.pending.setdefault(row.run_id, {})
            if row.state is ApprovalState.PENDING:
                of_run[row.id] = None
            else:
                of_run.pop(row.id, None)
        elif isinstance(row, Operation):
            self.operations[row.id] = row
            of_run = self.opened.setdefault(row.run_id, {})
            if row.state is OperationState.OPEN:
                of_run[row.id] = None
            else:
                of_run.pop(row.id, None)
        elif isinstance(row, Message):
            self.messages.setdefault(row.run_id, {})[row.id] = row
        elif isinstance(row, Artifact):
            before = self.artifacts.get(row.id)
            if before is not None and before.run_id != row.run_id and before.run_id is not None:
                self.saved[before.run_id].pop(row.id, None)
            self.artifacts[row.id] = row
            if row.run_id is not None:
                self.saved.setdefault(row.run_id, {})[row.id] = None
        elif isinstance(row, Agent):
            self._take_agent(row)
        elif isinstance(row, AgentRevision):
            self.revisions[row.agent_id, row.revision] = row
        else:
            self.requests[row.key] = row

    def _take_agent(self, row: Agent) -> None:
        before = self.agents.get(row.id)
        if before is not None and self.names.get((before.tenant, before.name)) == row.id:
            del self.names[before.tenant, before.name]
        self.agents[row.id] = row
        if row.delete_us is None:
            self.names[row.tenant, row.name] = row.id

    def _drop(self, row: Wait | Message | Run | Agent | Artifact) -> None:
        written = self.changes
        if isinstance(row, Wait | Message):
            written.touched.add(row.run_id)
        if isinstance(row, Wait):
            self.waits.get(row.run_id, {}).pop(row.step_id, None)
            written.waits.drop((row.run_id, row.step_id))
        elif isinstance(row, Message):
            self.messages.get(row.run_id, {}).pop(row.id, None)
            written.messages.drop(row.id)
        elif isinstance(row, Run):
            self._drop_run(row)
        elif isinstance(row, Artifact):
            self.saved.get(row.run_id or "", {}).pop(row.id, None)
            self.artifacts[row.id] = None
            written.artifacts.drop(row.id)
        else:
            if self.names.get((row.tenant, row.name)) == row.id:
                del self.names[row.tenant, row.name]
            self.agents[row.id] = None
            written.agents.drop(row.id)
            for key in [key for key in self.revisions if key[0] == row.id]:
                self.revisions[key] = None
                written.revisions.new.pop(key, None)

    def _drop_run(self, run: Run) -> None:
        written = self.changes
        for step_id in self.waits.pop(run.id, {}):
            written.waits.new.pop((run.id, step_id), None)
        self.pending.pop(run.id, None)
        for approval in [row for row in self.approvals.values() if row and row.run_id == run.id]:
            self.approvals[approval.id] = None
            written.approvals.new.pop(approval.id, None)
            written.approvals.changed.pop(approval.id, None)
        self.opened.pop(run.id, None)
        for operation in [row for row in self.operations.values() if row and row.run_id == run.id]:
            self.operations[operation.id] = None
            written.operations.new.pop(operation.id, None)
        for message_id in self.messages.pop(run.id, {}):
            written.messages.new.pop(message_id, None)
        for artifact_id in self.saved.pop(run.id, {}):
            self.artifacts[artifact_id] = None
            written.artifacts.new.pop(artifact_id, None)
            written.artifacts.changed.pop(artifact_id, None)
        self.trees.get(run.root_id, {}).pop(run.id, None)
        self.runs[run.id] = None
        written.advanced.pop(run.id, None)
        written.long.discard(run.id)
        written.runs.drop(run.id)
        if written.gone_events + run.last_sequence > MOST_GONE_EVENTS:
            written.removed.add(run.id)
        else:
            written.gone_events += run.last_sequence
        written.events[:] = [event for event in written.events if event.run_id != run.id]


def _wants_sealing(before: Run | None, run: Run) -> bool:
    """Once when a log gets long, and at its end when it is longer than one frame."""
    if run.state.is_final:
        return run.last_sequence > MAX_FRAME_EVENTS
    last = 0 if before is None else before.last_sequence
    return last <= LONG_LOG_EVENTS < run.last_sequence


_FOUND_BY = attrgetter("state", "owner", "ready_us", "finish_us")


def _advanced(run: Run, last_sequence: int, update_us: int) -> Run:
    # Every event passes here: `replace` would take ten times as long.
    copy = object.__new__(Run)
    fields = copy.__dict__
    fields.update(run.__dict__)
    fields["last_sequence"] = last_sequence
    fields["update_us"] = update_us
    return copy
