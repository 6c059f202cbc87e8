"""Judges a recording together with the final database: one function a promise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from grpc import StatusCode

from onbelay.v1.event_pb2 import RunEvent
from onbelay_server.domain.approval import Approval
from onbelay_server.domain.operation import Operation, OperationState
from onbelay_server.domain.principal import Viewer
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.ports.store import ApprovalFilter, OperationFilter, Place, RunFilter, Store
from tests.recorder import Exchange, Recording

NOT_YET = {
    "P11": "there are no budgets yet",
    "P12": "effects have no gate of approvals yet; what was asked and decided is judged by P4, P7",
    "P13": "a recording holds one caller; strangers are the tests of the edge",
    "P14": "no secrets are registered yet",
}
"""Promises without a judge here, and why."""

_SLACK_SECONDS = 5.0
_STREAMS = ("WatchRun",)
_COMPLETED = (OperationState.SUCCEEDED, OperationState.FAILED)
_STARTS = ("step_started", "step_restarted", "tool_call_started")


@dataclass(slots=True)
class Final:
    """What the database holds at the end."""

    runs: dict[str, Run] = field(default_factory=dict)
    logs: dict[str, list[Any]] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)

    @classmethod
    async def of(cls, store: Store, tenant: str = "default") -> Final:
        """Read it all."""
        final = cls()
        viewer = Viewer(tenant=tenant, principal="user:checker", is_admin=True)
        after: Place | None = None
        while page := await store.list_runs(viewer, RunFilter(), after=after, limit=500):
            after = Place(page[-1].create_us, page[-1].id)
            for run in page:
                final.runs[run.id] = run
                final.logs[run.id] = await _log(store, run.id)
        after = None
        while found := await store.list_approvals(viewer, ApprovalFilter(), after=after, limit=500):
            after = Place(found[-1].create_us, found[-1].id)
            final.approvals |= {one.id: one for one in found}
        after = None
        which = OperationFilter()
        while opened := await store.list_operations(viewer, which, after=after, limit=500):
            after = Place(opened[-1].create_us, opened[-1].id)
            final.operations |= {one.id: one for one in opened}
        return final


async def _log(store: Store, run_id: str) -> list[Any]:
    events: list[Any] = []
    position = 0
    while page := await store.events(run_id, after=position, limit=1000, max_bytes=2**22):
        events += [RunEvent.FromString(one.body) for one in page]
        position = page[-1].sequence
    return events


Broken = Iterable[str]


def p1_ordered(recording: Recording, final: Final) -> Broken:
    """A run's events are 1, 2, 3 …; each unfiltered stream sees strictly +1."""
    for run_id, log in final.logs.items():
        if [event.sequence for event in log] != list(range(1, len(log) + 1)):
            yield f"{run_id}: the log has a gap"
    for stream in _watches(recording):
        seen = [event.sequence for event in _events(stream)]
        step = 1 if not _is_filtered(stream) else None
        for before, after in pairwise(seen):
            if after <= before or (step and after != before + step):
                yield f"{stream.request.run_id}: {after} came behind {before}"


def p2_p3_unique_and_reliable(recording: Recording, final: Final) -> Broken:
    """All segments of a watcher, joined, equal the stored log."""
    watchers: dict[tuple[str, str], list[Exchange]] = {}
    for stream in _watches(recording):
        if stream.watcher and not _is_filtered(stream):
            watchers.setdefault((stream.watcher, stream.request.run_id), []).append(stream)
    for (name, run_id), streams in watchers.items():
        events = [event for stream in streams for event in _events(stream)]
        if not events or run_id not in final.logs:
            continue
        stored = final.logs[run_id][events[0].sequence - 1 : events[-1].sequence]
        if events != stored:
            yield f"{name} does not hold the log of {run_id}"


def p4_atomic(recording: Recording, final: Final) -> Broken:
    """No state without its event, no event without its state."""
    for run_id, run in final.runs.items():
        log = final.logs[run_id]
        if run.last_sequence != len(log):
            yield f"{run_id}: the row says {run.last_sequence} events, the log holds {len(log)}"
        moves = [event.state_changed for event in log if event.HasField("state_changed")]
        state = 1
        for move in moves:
            if move.from_state != state:
                yield f"{run_id}: a move from {move.from_state} in state {state}"
            state = move.to_state
        if _state_number(run.state) != state:
            yield f"{run_id}: the row says {run.state}, the log {state}"
        asked = {e.approval_requested.approval_id for e in log if e.HasField("approval_requested")}
        rows = {one.id for one in final.approvals.values() if one.run_id == run_id}
        if asked != rows:
            yield f"{run_id}: approvals and their events differ"
        opened = {e.operation_started.operation_id for e in log if e.HasField("operation_started")}
        kept = {one.id: one for one in final.operations.values() if one.run_id == run_id}
        done = {
            e.operation_completed.operation_id for e in log if e.HasField("operation_completed")
        }
        ended = {one.id for one in kept.values() if one.state in _COMPLETED}
        if opened != set(kept) or done != ended:
            yield f"{run_id}: operations and their events differ"


def p5_resumable(recording: Recording, final: Final) -> Broken:
    """`after_sequence = N` yields N + 1 first."""
    for call in [*_watches(recording), *recording.of("ListRunEvents")]:
        seen = [event.sequence for event in _events(call)]
        if seen and not _is_filtered(call) and not _is_last(call):
            wanted = call.request.after_sequence + 1
            if seen[0] != wanted:
                yield f"{call.request.run_id}: {seen[0]} came first, not {wanted}"


def p6_bookmark(recording: Recording, final: Final) -> Broken:
    """complete_through = N means that everything wanted up to N was sent."""
    for stream in _watches(recording):
        run_id = stream.request.run_id
        log = final.logs.get(run_id, [])
        position: int | None = None
        for _, reply in stream.replies:
            begin = reply.complete_through if position is None else position
            position = reply.complete_through
            due = [event for event in log[begin:position] if _is_wanted(stream, event)]
            is_wrong = position > len(log) or list(reply.events) != due
            if position < begin or (log and is_wrong):
                yield f"{run_id}: the reply through {position} is not what followed {begin}"


def p7_durable(recording: Recording, final: Final) -> Broken:
    """What was acknowledged is there."""
    deleted = {one.request.run_id for one in _accepted(recording, "DeleteRun")}
    for start in _accepted(recording, "StartRun"):
        run_id = start.reply.run.id
        if run_id not in final.runs and run_id not in deleted:
            yield f"{run_id} was started and is gone"
    for stop in _accepted(recording, "StopRun"):
        run = final.runs.get(stop.request.run_id)
        if run is not None and run.stop is None and not run.state.is_final:
            yield f"{run.id}: its stop is gone"
    for decision in _accepted(recording, "DecideApproval"):
        approval = final.approvals.get(decision.request.approval_id)
        if approval is None:
            continue
        decided = [
            event
            for event in final.logs.get(approval.run_id, [])
            if event.HasField("approval_decided")
            and event.approval_decided.approval_id == approval.id
        ]
        if approval.decision is None or len(decided) != 1:
            yield f"{approval.id}: its decision is gone, or there twice"
    for done in _accepted(recording, "CompleteOperation"):
        operation = final.operations.get(done.request.operation_id)
        if operation is not None and operation.state not in _COMPLETED:
            yield f"{operation.id}: its completion is gone"
    for said in _accepted(recording, "SendMessage"):
        log = final.logs.get(said.request.run_id, [])
        ids = [e.message_received.message_id for e in log if e.HasField("message_received")]
        if log and ids.count(said.reply.message_id) != 1:
            yield f"{said.reply.message_id} is gone, or there twice"


def p8_terminal_is_final(recording: Recording, final: Final) -> Broken:
    """Exactly one terminal event, the last, and only in a run that ended."""
    for run_id, run in final.runs.items():
        log = final.logs[run_id]
        ends = [event.sequence for event in log if event.HasField("run_finished")]
        if ends != ([len(log)] if run.state.is_final else []):
            yield f"{run_id}: {run.state} with terminal events at {ends} of {len(log)}"


def p9_single_owner(recording: Recording, final: Final) -> Broken:
    """Epochs never fall along a log."""
    for run_id, run in final.runs.items():
        epochs = [event.epoch for event in final.logs[run_id]]
        if epochs != sorted(epochs) or (epochs and epochs[-1] > run.epoch):
            yield f"{run_id}: epochs {epochs}"


def p10_stop_bound(recording: Recording, final: Final) -> Broken:
    """After a committed stop nothing begins, and the run has ended in its bound."""
    for run_id, run in final.runs.items():
        if run.stop is None:
            continue
        asked_us = run.stop.request_us
        for event in final.logs[run_id]:
            if event.WhichOneof("payload") in _STARTS and _us(event) > asked_us:
                yield f"{run_id}: {event.step_id} began after the stop"
        # While no server is up nobody can wind it down, and nothing of it lives either.
        bound_us = max([run.stop.kill_us, *recording.server_starts_us])
        finish_us = run.finish_us or 0
        if finish_us - bound_us > _SLACK_SECONDS * 1_000_000:
            yield f"{run_id}: it took {finish_us - asked_us} µs to stop"


def p15_idempotent(recording: Recording, final: Final) -> Broken:
    """One request_id, one run; and one call that made it."""
    made: dict[str, list[Exchange]] = {}
    for start in _accepted(recording, "StartRun"):
        made.setdefault(start.request.request_id, []).append(start)
    for request_id, starts in made.items():
        if len({start.reply.run.id for start in starts}) != 1:
            yield f"{request_id} started several runs"
        if sum(not start.reply.already_started for start in starts) > 1:
            yield f"{request_id}: several calls say they started it"
    messages: dict[tuple[str, str], set[str]] = {}
    for said in _accepted(recording, "SendMessage"):
        if name := said.request.request_id:
            messages.setdefault((said.request.run_id, name), set()).add(said.reply.message_id)
    for (run_id, name), ids in messages.items():
        if len(ids) != 1:
            yield f"{run_id}: {name} sent several messages"


def p16_no_silent_hang(recording: Recording, final: Final) -> Broken:
    """Streams answer at least once a heartbeat until they end; no stop is left unfinished.

    A run that is RUNNING is none: a server killed last leaves it so, for the next to take over."""
    for stream in [*_watches(recording), *recording.of("WatchRuns")]:
        beat = stream.request.heartbeat_interval.ToTimedelta().total_seconds() or 10.0
        times = [stream.sent_at, *(at for at, _ in stream.replies)]
        times += [] if stream.ended_at is None else [stream.ended_at]
        for before, after in pairwise(times):
            if after - before > beat + _SLACK_SECONDS:
                yield f"{stream.method} was silent for {after - before:.1f} s"
    for run in final.runs.values():
        if run.state is RunState.STOPPING:
            yield f"{run.id} stays {run.state}"


def p17_durable_execution(recording: Recording, final: Final) -> Broken:
    """No recorded effect is repeated; what may not be repeated is not, unless a person said so."""
    for run_id, log in final.logs.items():
        started: dict[str, Any] = {}
        finished: set[str] = set()
        allowed: set[str] = set()
        for event in log:
            kind, step_id = event.WhichOneof("payload"), event.step_id
            if kind == "step_started":
                if step_id in started:
                    yield f"{run_id}: {step_id} was asked twice"
                started[step_id] = event.step_started
            elif kind in ("step_finished", "tool_call_finished"):
                if step_id in finished:
                    yield f"{run_id}: {step_id} has two results"
                finished.add(step_id)
            elif kind == "approval_decided":
                allowed.add(step_id)
            elif kind == "step_restarted":
                is_once = '"once":true' in started[step_id].request_json
                if step_id in finished or (is_once and step_id not in allowed):
                    yield f"{run_id}: {step_id} was repeated"
        received = [e.message_received.message_id for e in log if e.HasField("message_received")]
        taken = [i for e in log if e.HasField("message_read") for i in e.message_read.message_ids]
        if taken != received[: len(taken)]:
            yield f"{run_id}: messages were taken twice or out of order"


CHECKS: Sequence[Callable[[Recording, Final], Broken]] = (
    p1_ordered,
    p2_p3_unique_and_reliable,
    p4_atomic,
    p5_resumable,
    p6_bookmark,
    p7_durable,
    p8_terminal_is_final,
    p9_single_owner,
    p10_stop_bound,
    p15_idempotent,
    p16_no_silent_hang,
    p17_durable_execution,
)


def judge(recording: Recording, final: Final) -> list[str]:
    """Every promise that was broken, by its function's name."""
    return [f"{check.__name__}: {text}" for check in CHECKS for text in check(recording, final)]


def _watches(recording: Recording) -> list[Exchange]:
    return [one for one in recording.exchanges if one.method in _STREAMS]


def _accepted(recording: Recording, method: str) -> list[Exchange]:
    return [one for one in recording.of(method) if one.code is StatusCode.OK]


def _events(call: Exchange) -> list[Any]:
    return [event for _, reply in call.replies for event in reply.events]


def _is_filtered(call: Exchange) -> bool:
    return bool(call.request.kinds or call.request.except_kinds)


def _is_last(call: Exchange) -> bool:
    return call.method == "WatchRun" and call.request.WhichOneof("position") == "last_events"


def _is_wanted(call: Exchange, event: Any) -> bool:
    kind = event.DESCRIPTOR.fields_by_name[event.WhichOneof("payload")].number
    if call.request.kinds:
        return kind in call.request.kinds
    return kind not in call.request.except_kinds


def _state_number(state: RunState) -> int:
    return list(RunState).index(state) + 1


def _us(event: Any) -> int:
    stamp: int = event.time.ToMicroseconds()
    return stamp
