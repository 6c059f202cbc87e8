"""A store that forgets everything with the process."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from onbelay_server.adapters.changes import Changes
from onbelay_server.adapters.memory.visibility import decides, sees
from onbelay_server.adapters.sealing import joined, pack
from onbelay_server.adapters.unit import Unit
from onbelay_server.adapters.working_set import Conflict, WorkingSet
from onbelay_server.domain.agent import Agent, AgentRevision
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Decide, Reads
from onbelay_server.domain.error import Aborted, Unavailable
from onbelay_server.domain.operation import Operation
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.run import Run, Wait
from onbelay_server.domain.state import RunState
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.store import (
    LONG_LOG_EVENTS,
    MAX_FRAME_EVENTS,
    Appended,
    ApprovalFilter,
    Committed,
    Frame,
    Lease,
    OperationFilter,
    Place,
    RunFilter,
    StoredEvent,
)

T = TypeVar("T")
Dated = TypeVar("Dated", Run, Approval, Operation, Artifact, Agent)

_DRIVEN = (RunState.RUNNING, RunState.STOPPING)


class MemoryStore:
    """Store over dictionaries. A write is done when `write` is first awaited: units never share a
    transaction, and this process's leases found dead are void as in an embedded database."""

    def __init__(self, *, codec: EventCodec, clock: Clock) -> None:
        self._codec = codec
        self._clock = clock
        self._rows = WorkingSet()
        self._logs: dict[str, list[StoredEvent]] = {}
        self._frames: dict[str, list[Frame]] = {}
        self._hear: list[Callable[[Sequence[Appended]], None]] = []
        self._is_closed = False

    async def write(self, reads: Reads, decide: Decide[T]) -> Committed[T]:
        self._check_open()
        self._rows.changes = changes = Changes()
        try:
            committed = Unit(reads, decide).run(self._rows, self._clock.now_us(), self._codec)
        except Conflict:
            raise Aborted("another request was first; try again", retry_after_seconds=0.1) from None
        for run_id in changes.runs.gone:
            self._logs.pop(run_id, None)
            self._frames.pop(run_id, None)
            self._rows.runs.pop(run_id, None)
        for run_id, after in committed.runs.items():
            if after.events:
                self._logs.setdefault(run_id, []).extend(after.events)
        if committed.runs:
            for hear in self._hear:
                hear(list(committed.runs.values()))
        return committed

    def on_commit(self, hear: Callable[[Sequence[Appended]], None]) -> None:
        self._hear.append(hear)

    async def run(self, run_id: str) -> Run | None:
        return self._rows.runs.get(run_id)

    async def waits(self, run_ids: Sequence[str]) -> Mapping[str, list[Wait]]:
        return {run_id: list(self._rows.waits.get(run_id, {}).values()) for run_id in run_ids}

    async def list_runs(
        self, viewer: Viewer, which: RunFilter, *, after: Place | None, limit: int
    ) -> list[Run]:
        found = [run for run in self._runs() if sees(viewer, run) and which.matches(run)]
        return _newest(found, after, limit)

    async def events(
        self,
        run_id: str,
        *,
        after: int,
        limit: int,
        max_bytes: int,
        kinds: Sequence[int] = (),
        except_kinds: Sequence[int] = (),
        through: int | None = None,
    ) -> list[StoredEvent]:
        log = self._logs.get(run_id, [])
        # The log is dense from 1: a sequence is a place in it.
        wanted = (
            event
            for event in islice(log, after, through)
            if (not kinds or event.kind in kinds) and event.kind not in except_kinds
        )
        taken: list[StoredEvent] = []
        total = 0
        for event in islice(wanted, limit):
            taken.append(event)
            total += len(event.body)
            if total >= max_bytes:
                break
        return taken

    async def seal(self, run_id: str, *, through: int | None) -> int:
        run = self._rows.runs.get(run_id)
        if run is None:
            return 0
        log = self._logs.get(run_id, [])
        frames = self._frames.setdefault(run_id, [])
        end = len(log) if through is None else min(through, len(log))
        with_rest = run.state.is_final and end == len(log)
        made = pack(log[_sealed(frames) : end], self._codec, with_rest=with_rest)
        frames += made
        return len(made)

    async def frames(self, run_id: str, *, after: int, limit_bytes: int) -> list[Frame]:
        kept = self._frames.get(run_id, [])
        begin = bisect_right(kept, after, key=lambda frame: frame.last)
        taken: list[Frame] = []
        total = 0
        for frame in islice(kept, begin, None):
            taken.append(frame)
            total += len(frame.data)
            if total >= limit_bytes:
                break
        return joined(taken, after, self._codec)

    async def unsealed(self, limit: int) -> list[str]:
        found = []
        for run in self._runs():
            rest = run.last_sequence - _sealed(self._frames.get(run.id, []))
            is_done = run.state.is_final and run.last_sequence > MAX_FRAME_EVENTS and rest > 0
            if is_done or rest > LONG_LOG_EVENTS:
                found.append(run.id)
        return sorted(found)[:limit]

    async def approval(self, approval_id: str) -> Approval | None:
        return self._rows.approvals.get(approval_id)

    async def list_approvals(
        self, viewer: Viewer, which: ApprovalFilter, *, after: Place | None, limit: int
    ) -> list[Approval]:
        found = []
        for approval in _present(self._rows.approvals.values()):
            run = self._rows.runs[approval.run_id]
            assert run is not None
            visible = sees(viewer, run) or (
                viewer.tenant == approval.tenant and decides(viewer.principal, approval)
            )
            wanted = (
                (not which.run_id or approval.run_id == which.run_id)
                and (not which.states or approval.state in which.states)
                and (not which.kinds or approval.kind in which.kinds)
                and (not which.agent_id or which.agent_id in (approval.agent_id, run.agent_name))
                and (not which.decidable_by or decides(which.decidable_by, approval))
                and which.evidence_artifact_id in ("", approval.evidence_artifact_id)
            )
            if visible and wanted:
                found.append(approval)
        return _newest(found, after, limit)

    async def operation(self, operation_id: str) -> Operation | None:
        return self._rows.operations.get(operation_id)

    async def list_operations(
        self, viewer: Viewer, which: OperationFilter, *, after: Place | None, limit: int
    ) -> list[Operation]:
        found = [
            row
            for row in _present(self._rows.operations.values())
            if viewer.sees(tenant=row.tenant, starter=row.starter, agent_owner=row.agent_owner)
            and (not which.run_id or row.run_id == which.run_id)
            and (not which.states or row.state in which.states)
        ]
        return _newest(found, after, limit)

    async def artifact(self, artifact_id: str) -> Artifact | None:
        return self._rows.artifacts.get(artifact_id)

    async def list_artifacts(
        self, run_id: str, *, after: Place | None, limit: int
    ) -> list[Artifact]:
        found = _present(self._rows.artifacts[name] for name in self._rows.saved.get(run_id, {}))
        place = (after.create_us, after.id) if after is not None else (-1, "")
        behind = [row for row in found if (row.create_us, row.id) > place]
        return sorted(behind, key=lambda row: (row.create_us, row.id))[:limit]

    async def agent(self, agent_id: str) -> Agent | None:
        return self._rows.agents.get(agent_id)

    async def agent_named(self, tenant: str, name: str) -> Agent | None:
        agent_id = self._rows.names.get((tenant, name))
        return self._rows.agents.get(agent_id) if agent_id is not None else None

    async def list_agents(self, tenant: str, *, after: Place | None, limit: int) -> list[Agent]:
        agents = _present(self._rows.agents.values())
        found = [row for row in agents if row.tenant == tenant and row.delete_us is None]
        return _newest(found, after, limit)

    async def revision(self, agent_id: str, revision: int) -> AgentRevision | None:
        return self._rows.revisions.get((agent_id, revision))

    async def list_revisions(
        self, agent_id: str, *, before: int | None, limit: int
    ) -> list[AgentRevision]:
        found = [row for row in self._rows.revisions.values() if row and row.agent_id == agent_id]
        older = [row for row in found if before is None or row.revision < before]
        return sorted(older, key=lambda row: -row.revision)[:limit]

    async def claimable(self, now_us: int, *, limit: int) -> list[Run]:
        queues: dict[str, list[Run]] = defaultdict(list)
        for run in self._runs():
            if run.state is RunState.QUEUED and run.ready_us <= now_us:
                queues[run.tenant].append(run)
        turns = []
        for queue in queues.values():
            queue.sort(key=lambda run: (run.ready_us, run.id))
            turns += [(turn, run.ready_us, run.id, run) for turn, run in enumerate(queue)]
        return [entry[-1] for entry in sorted(turns, key=lambda entry: entry[:3])[:limit]]

    async def next_ready_us(self) -> int | None:
        queued = (run.ready_us for run in self._runs() if run.state is RunState.QUEUED)
        return min(queued, default=None)

    async def due_waits(self, now_us: int, *, limit: int) -> list[Wait]:
        due = [(end, wait) for end, wait in self._ends() if end <= now_us]
        return [wait for _, wait in sorted(due, key=lambda entry: entry[0])[:limit]]

    async def next_due_us(self) -> int | None:
        return min((end for end, _ in self._ends()), default=None)

    async def renew(self, owner: str, *, until_us: int) -> list[Lease]:
        self._check_open()
        leases = []
        for run in [run for run in self._runs() if run.owner == owner]:
            self._rows.runs[run.id] = replace(run, lease_until_us=until_us)
            leases.append(Lease(run.id, run.epoch, run.state, run.pause is not None))
        return leases

    async def orphans(self, now_us: int, *, alive: Sequence[str], limit: int) -> list[Run]:
        found = [run for run in self._runs() if run.state in _DRIVEN and run.owner not in alive]
        return sorted(found, key=lambda run: run.id)[:limit]

    async def expired_roots(self, finished_before_us: int, *, limit: int) -> list[Run]:
        def ended(run: Run) -> bool:
            return run.finish_us is not None and run.finish_us < finished_before_us

        roots = [run for run in self._runs() if run.parent_id is None and ended(run)]
        whole = [root for root in roots if all(ended(run) for run in _present(self._tree(root.id)))]
        return sorted(whole, key=lambda run: (run.finish_us or 0, run.id))[:limit]

    async def expired_uploads(self, now_us: int, *, limit: int) -> list[Artifact]:
        found = [
            row
            for row in _present(self._rows.artifacts.values())
            if row.run_id is None and row.expire_us is not None and row.expire_us <= now_us
        ]
        return sorted(found, key=lambda row: row.expire_us or 0)[:limit]

    async def blobs_in_use(self, sha256s: Sequence[str]) -> set[str]:
        return {row.sha256 for row in _present(self._rows.artifacts.values())} & set(sha256s)

    async def prune_requests(self, before_us: int, *, limit: int) -> int:
        self._check_open()
        stale = [
            key
            for key, row in self._rows.requests.items()
            if row is not None
            and row.create_us < before_us
            and self._rows.runs.get(row.result_id) is None
        ]
        for key in stale[:limit]:
            del self._rows.requests[key]
        return min(len(stale), limit)

    async def check(self) -> None:
        self._check_open()

    async def close(self) -> None:
        self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("the store is closed", retry_after_seconds=1.0)

    def _runs(self) -> list[Run]:
        return _present(self._rows.runs.values())

    def _tree(self, root_id: str) -> Iterable[Run | None]:
        return (self._rows.runs[run_id] for run_id in self._rows.trees.get(root_id, {}))

    def _ends(self) -> Iterable[tuple[int, Wait]]:
        for run_id, waits in self._rows.waits.items():
            run = self._rows.runs.get(run_id)
            if run is not None and not run.state.is_final:
                for wait in waits.values():
                    if wait.until_us is not None:
                        yield wait.until_us, wait


R = TypeVar("R")


def _sealed(frames: Sequence[Frame]) -> int:
    return frames[-1].last if frames else 0


def _present(rows: Iterable[R | None]) -> list[R]:
    return [row for row in rows if row is not None]


def _newest(rows: Iterable[Dated], after: Place | None, limit: int) -> list[Dated]:
    behind = [
        row
        for row in rows
        if after is None or (row.create_us, row.id) < (after.create_us, after.id)
    ]
    return sorted(behind, key=lambda row: (row.create_us, row.id), reverse=True)[:limit]
