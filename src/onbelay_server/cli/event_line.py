"""A run's log as a story: one event in one plain line."""

from __future__ import annotations

from onbelay_client import contract as pb
from onbelay_client.protojson import to_datetime
from onbelay_server.cli.terminal import safe, size, state_name

SHOWN_STEP_KINDS = frozenset({pb.STEP_KIND_STEP, pb.STEP_KIND_TOOL, pb.STEP_KIND_MODEL})
"""What the agent does, rather than what it asks for, waits for or keeps: those have lines of their
own."""

SHOWN_REPORT_CHARACTERS = 120


def event_line(event: pb.RunEvent) -> str | None:
    """One event in one plain line; None for what only programs need."""
    text = _of_work(event) or _of_people(event) or _of_others(event)
    if text is None:
        return None
    shown = safe(text.strip(), lines=True).replace("\n", "\n          ")
    return f"{to_datetime(event.time).astimezone():%H:%M:%S}  {shown}"


def amount(progress: pb.Progress | pb.ProgressReported) -> str:
    """`12 of 40`, `12`, or nothing."""
    if not progress.HasField("done"):
        return ""
    done = f"{progress.done:,.0f}"
    return f"{done} of {progress.total:,.0f}" if progress.HasField("total") else done


def message_text(message: pb.MessageReceived) -> str:
    """What somebody said to the run, and who."""
    return f"message  {message.sent_by}  {message.text or message.data_json}"


def report_text(report: pb.CustomReported) -> str:
    """What the agent reported, by its name; long data is cut, for `--json` has it whole."""
    data = report.data_json
    if len(data) > SHOWN_REPORT_CHARACTERS:
        data = data[: SHOWN_REPORT_CHARACTERS - 1] + "…"
    return f"report  {report.name}  {data}"


def name_of_error(error: pb.StepError) -> str:
    """What went wrong, with its short code."""
    return f"{error.message} ({error.reason})" if error.reason else error.message


def _of_work(event: pb.RunEvent) -> str | None:
    """What the run itself does and how it stands."""
    match event.WhichOneof("payload"):
        case "run_started":
            return f"started  {event.run_started.agent_name}"
        case "state_changed":
            return _state(event.state_changed)
        case "step_started" if event.step_started.kind in SHOWN_STEP_KINDS:
            return f"step  {event.step_started.name}"
        case "step_restarted":
            return f"step again  {event.step_id}  attempt {event.step_restarted.attempt}"
        case "step_finished" if event.step_finished.WhichOneof("outcome") == "error":
            return f"step failed  {event.step_id}  {event.step_finished.error.message}"
        case "tool_call_finished" if event.tool_call_finished.WhichOneof("outcome") == "error":
            return f"step failed  {event.step_id}  {event.tool_call_finished.error.message}"
        case "progress_reported":
            report = event.progress_reported
            return f"progress  {amount(report)}  {report.note}"
        case "log_written":
            level = pb.LogLevel.Name(event.log_written.level).removeprefix("LOG_LEVEL_").lower()
            return f"{level}  {event.log_written.message}  {event.log_written.data_json}".rstrip()
        case "text_delta" if event.text_delta.text.strip():
            return f"text  {event.text_delta.text}"
        case "custom_reported":
            return report_text(event.custom_reported)
        case "artifact_saved" if event.artifact_saved.name:
            return f"file  {event.artifact_saved.name}  {size(event.artifact_saved.size_bytes)}"
        case "run_finished":
            return _finished(event.run_finished)
    return None


def _of_people(event: pb.RunEvent) -> str | None:
    """What people are asked and say."""
    match event.WhichOneof("payload"):
        case "approval_requested":
            asked = event.approval_requested
            return f"asks  {asked.title}  {asked.approval_id}"
        case "approval_decided":
            decided = event.approval_decided
            what = pb.ApprovalDecision.Name(decided.decision).removeprefix("APPROVAL_DECISION_")
            return f"decided  {what} by {decided.decided_by}  {decided.comment}".rstrip()
        case "approval_expired":
            return f"expired  {event.approval_expired.approval_id}"
        case "approval_voided":
            voided = event.approval_voided
            return f"voided  {voided.approval_id}  {voided.reason}"
        case "message_received":
            return message_text(event.message_received)
        case "message_read" if event.message_read.message_ids:
            count = len(event.message_read.message_ids)
            return f"read  {count} message{'s' if count > 1 else ''}"
    return None


def _of_others(event: pb.RunEvent) -> str | None:
    """What other runs, other systems and the clock do for it."""
    match event.WhichOneof("payload"):
        case "child_run_started":
            child = event.child_run_started
            return f"child  {child.agent_name}  {child.child_run_id}"
        case "child_run_finished":
            ended = event.child_run_finished
            why = f"  {ended.error.message}" if ended.error.message else ""
            return f"child ended  {state_name(ended.state)}  {ended.child_run_id}{why}"
        case "operation_started":
            begun = event.operation_started
            return f"operation  {begun.name}  {begun.operation_id}"
        case "operation_completed":
            done = event.operation_completed
            failed = done.WhichOneof("outcome") == "error"
            by = f"  by {done.completed_by}" if done.completed_by else ""
            how = f"failed  {done.operation_id}  {name_of_error(done.error)}"
            return f"operation {how if failed else f'done  {done.operation_id}'}{by}"
        case "operation_expired":
            return f"operation expired  {event.operation_expired.operation_id}"
        case "timer_fired":
            due = to_datetime(event.timer_fired.due_time).astimezone()
            return f"timer  due {due:%Y-%m-%d %H:%M:%S}"
    return None


def _state(change: pb.StateChanged) -> str:
    words = [f"state  {state_name(change.to_state)}"]
    if change.to_state == pb.RUN_STATE_RUNNING and change.attempt > 1:
        words.append(f"attempt {change.attempt}")
    if change.reason:
        words.append(change.reason)
    if change.changed_by:
        words.append(f"by {change.changed_by}")
    return "  ".join(words)


def _finished(end: pb.RunFinished) -> str:
    words = [f"finished  {state_name(end.state)}"]
    if end.error.message:
        words.append(end.error.message)
    words += [f"not stopped: {item}" for item in end.not_stopped]
    return "  ".join(words)
