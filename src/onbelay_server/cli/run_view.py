"""What a person sees of a run while it works, drawn from its events."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from onbelay_client import contract as pb
from onbelay_client import is_final
from onbelay_client.protojson import to_datetime
from onbelay_server.cli.terminal import safe, size, state_name, state_text

SHOWN_STEPS = 8
# What the agent does, rather than what it asks for or keeps: those have lines of their own.
SHOWN_STEP_KINDS = frozenset(
    {
        pb.STEP_KIND_STEP,
        pb.STEP_KIND_TOOL,
        pb.STEP_KIND_MODEL,
        pb.STEP_KIND_CHILD,
        pb.STEP_KIND_OPERATION,
    }
)
SHOWN_LINES = 8
SHOWN_TEXT_CHARACTERS = 4_000

_LOG_STYLES = {
    pb.LOG_LEVEL_DEBUG: "dim",
    pb.LOG_LEVEL_WARNING: "yellow",
    pb.LOG_LEVEL_ERROR: "red",
}


@dataclass(slots=True)
class StepLine:
    """One step as it is shown."""

    name: str
    outcome: str = ""
    """Empty while it runs, then `done`, `failed` or `cancelled`."""
    note: str = ""


class RunView:
    """Takes the replies of a watch and draws what they add up to."""

    def __init__(self) -> None:
        self.run = pb.Run()
        self.position = 0
        self._steps: OrderedDict[str, StepLine] = OrderedDict()
        self._text = ""
        self._log: deque[Text] = deque(maxlen=SHOWN_LINES)
        self._progress = pb.Progress()
        self._artifacts: dict[str, pb.ArtifactSaved] = {}
        self._spinner = Spinner("dots", style="blue")

    def take(self, reply: pb.WatchRunResponse) -> None:
        """Learn from one reply."""
        if reply.HasField("run"):
            self.run = reply.run
        for event in reply.events:
            self.position = event.sequence
            self._take_event(event)
        self.position = max(self.position, reply.complete_through)

    @property
    def is_current(self) -> bool:
        """Whether every event up to the run as it is known was taken."""
        return self.position >= self.run.last_sequence

    def _take_event(self, event: pb.RunEvent) -> None:
        kind = event.WhichOneof("payload")
        if kind == "step_started" and event.step_started.kind in SHOWN_STEP_KINDS:
            self._steps[event.step_id] = StepLine(event.step_started.name)
        elif kind == "step_finished" and event.step_id in self._steps:
            step = self._steps[event.step_id]
            failed = event.step_finished.WhichOneof("outcome") == "error"
            step.outcome = "failed" if failed else "done"
            step.note = event.step_finished.error.message if failed else _took(event.step_finished)
        elif kind == "step_cancelled" and event.step_id in self._steps:
            self._steps[event.step_id].outcome = "cancelled"
        elif kind == "text_delta":
            self._text = (self._text + event.text_delta.text)[-SHOWN_TEXT_CHARACTERS:]
        elif kind == "progress_reported":
            report = event.progress_reported
            self._progress = pb.Progress(note=report.note)
            if report.HasField("done"):
                self._progress.done = report.done
            if report.HasField("total"):
                self._progress.total = report.total
        elif kind == "log_written":
            style = _LOG_STYLES.get(event.log_written.level, "")
            self._log.append(Text(safe(event.log_written.message), style=style))
        elif kind == "artifact_saved" and event.artifact_saved.name:
            self._artifacts[event.artifact_saved.name] = event.artifact_saved

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [self._headline()]
        if self._steps:
            parts.append(self._step_table())
        if self._progress.note or self._progress.HasField("done"):
            parts.append(progress_line(self._progress))
        if self._text.strip():
            tail = safe(self._text, lines=True).rstrip().splitlines()[-SHOWN_LINES:]
            parts.append(Text("\n".join(tail)))
        parts.extend(self._log)
        if self._artifacts:
            names = ", ".join(
                f"{safe(each.name)} ({size(each.size_bytes)})" for each in self._artifacts.values()
            )
            parts.append(Text(f"files  {names}", style="dim"))
        if self.run.state == pb.RUN_STATE_FAILED:
            parts.append(Text(safe(self.run.error.message, lines=True), style="red"))
        return Group(*parts)

    def _headline(self) -> RenderableType:
        line = Text.assemble(
            (safe(self.run.agent_name), "bold"), "  ", self.run.id, "  ", state_text(self.run.state)
        )
        if self.run.HasField("stop") and self.run.stop.reason:
            line.append(f"  {safe(self.run.stop.reason)}")
        return line

    def _step_table(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        hidden = len(self._steps) - SHOWN_STEPS
        if hidden > 0:
            table.add_row("", Text(f"… {hidden} earlier steps", style="dim"), "")
        for step in list(self._steps.values())[-SHOWN_STEPS:]:
            mark: RenderableType = {
                "done": Text("✓", style="green"),
                "failed": Text("✗", style="red"),
                "cancelled": Text("–", style="dim"),
            }.get(step.outcome) or (Text("·") if is_final(self.run) else self._spinner)
            table.add_row(mark, Text(safe(step.name)), Text(safe(step.note), style="dim"))
        return table


def _took(finished: pb.StepFinished) -> str:
    seconds = finished.duration.ToTimedelta().total_seconds()
    return f"{seconds:.1f} s" if seconds >= 0.1 else ""


def amount(progress: pb.Progress) -> str:
    """`12 of 40`, `12`, or nothing."""
    if not progress.HasField("done"):
        return ""
    done = f"{progress.done:,.0f}"
    return f"{done} of {progress.total:,.0f}" if progress.HasField("total") else done


def progress_line(progress: pb.Progress) -> RenderableType:
    """A bar, the amount and what is being done."""
    line = Table.grid(padding=(0, 1))
    total = progress.total if progress.HasField("total") and progress.total > 0 else None
    line.add_row(
        ProgressBar(total=total, completed=progress.done, width=30, pulse=total is None),
        Text(amount(progress)),
        Text(safe(progress.note)),
    )
    return line


def event_line(event: pb.RunEvent) -> str | None:
    """One event in one plain line; None for what only programs need."""
    text = _event_text(event)
    if text is None:
        return None
    shown = safe(text.strip(), lines=True).replace("\n", "\n          ")
    return f"{to_datetime(event.time).astimezone():%H:%M:%S}  {shown}"


def _event_text(event: pb.RunEvent) -> str | None:
    match event.WhichOneof("payload"):
        case "run_started":
            return f"started  {event.run_started.agent_name}"
        case "state_changed":
            change = event.state_changed
            return f"state  {state_name(change.to_state)}" + (
                f"  {change.reason}" if change.reason else ""
            )
        case "step_started" if event.step_started.kind in SHOWN_STEP_KINDS:
            return f"step  {event.step_started.name}"
        case "step_finished" if event.step_finished.WhichOneof("outcome") == "error":
            return f"step failed  {event.step_id}  {event.step_finished.error.message}"
        case "progress_reported":
            report = event.progress_reported
            known = pb.Progress(note=report.note)
            if report.HasField("done"):
                known.done = report.done
            if report.HasField("total"):
                known.total = report.total
            return f"progress  {amount(known)}  {report.note}"
        case "log_written":
            level = pb.LogLevel.Name(event.log_written.level).removeprefix("LOG_LEVEL_").lower()
            return f"{level}  {event.log_written.message}"
        case "text_delta":
            return f"text  {event.text_delta.text}" if event.text_delta.text.strip() else None
        case "approval_requested":
            asked = event.approval_requested
            return f"asks  {asked.title}  {asked.approval_id}"
        case "approval_decided":
            decided = event.approval_decided
            what = pb.ApprovalDecision.Name(decided.decision).removeprefix("APPROVAL_DECISION_")
            return f"decided  {what} by {decided.decided_by}  {decided.comment}".rstrip()
        case "artifact_saved" if event.artifact_saved.name:
            saved = event.artifact_saved
            return f"file  {saved.name}  {size(saved.size_bytes)}"
        case "run_finished":
            error = event.run_finished.error.message
            return f"finished  {state_name(event.run_finished.state)}" + (
                f"  {error}" if error else ""
            )
    return None
