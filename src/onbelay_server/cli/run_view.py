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
from onbelay_server.cli.event_line import (
    SHOWN_STEP_KINDS,
    amount,
    message_text,
    name_of_error,
    report_text,
)
from onbelay_server.cli.terminal import safe, size, state_text

SHOWN_STEPS = 8
_CHILD_OUTCOMES = {
    pb.RUN_STATE_SUCCEEDED: "done",
    pb.RUN_STATE_STOPPED: "cancelled",
}
SHOWN_LINES = 8
SHOWN_TEXT_CHARACTERS = 4_000
_ENDS_A_TEXT = frozenset({"step_started", "step_finished", "tool_call_finished", "state_changed"})
"""Events between two texts that make them two."""

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
        self._text_place: tuple[str, str] | None = None
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
        if kind in _ENDS_A_TEXT:
            self._text_place = None
        if kind == "step_started" and event.step_started.kind in SHOWN_STEP_KINDS:
            self._steps[event.step_id] = StepLine(event.step_started.name)
        elif kind == "step_finished":
            self._end_step(event.step_id, event.step_finished)
        elif kind == "tool_call_finished":
            self._end_step(event.step_id, event.tool_call_finished)
        elif kind == "step_cancelled" and event.step_id in self._steps:
            self._steps[event.step_id].outcome = "cancelled"
        elif kind == "step_restarted" and event.step_id in self._steps:
            self._steps[event.step_id].note = f"attempt {event.step_restarted.attempt}"
        elif kind in ("child_run_started", "operation_started"):
            self._begin_outside(event)
        elif kind in ("child_run_finished", "operation_completed", "operation_expired"):
            self._end_outside(event)
        elif kind == "message_received":
            self._log.append(Text(safe(message_text(event.message_received)), style="cyan"))
        elif kind == "text_delta":
            self._take_text(event)
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
        elif kind == "custom_reported":
            shown = Text(safe(report_text(event.custom_reported)), overflow="ellipsis")
            shown.no_wrap = True
            self._log.append(shown)
        elif kind == "artifact_saved" and event.artifact_saved.name:
            self._artifacts[event.artifact_saved.name] = event.artifact_saved

    def _take_text(self, event: pb.RunEvent) -> None:
        """Pieces from one place, with no step in between, are one text; another begins a line."""
        place = (event.step_id, event.text_delta.message_id)
        if place != self._text_place and self._text and not self._text.endswith("\n"):
            self._text += "\n"
        self._text_place = place
        self._text = (self._text + event.text_delta.text)[-SHOWN_TEXT_CHARACTERS:]

    def _end_step(self, step_id: str, end: pb.StepFinished | pb.ToolCallFinished) -> None:
        step = self._steps.get(step_id)
        if step is None:
            return
        failed = end.WhichOneof("outcome") == "error"
        step.outcome = "failed" if failed else "done"
        step.note = end.error.message if failed else _took(end)

    def _begin_outside(self, event: pb.RunEvent) -> None:
        """Children and operations are shown by their ids: no step lasts as long as they do."""
        if event.WhichOneof("payload") == "child_run_started":
            child = event.child_run_started
            self._steps[child.child_run_id] = StepLine(f"{child.agent_name}  {child.child_run_id}")
        else:
            begun = event.operation_started
            self._steps[begun.operation_id] = StepLine(f"{begun.name}  {begun.operation_id}")

    def _end_outside(self, event: pb.RunEvent) -> None:
        match event.WhichOneof("payload"):
            case "child_run_finished":
                child = event.child_run_finished
                line, note = self._steps.get(child.child_run_id), child.error.message
                outcome = _CHILD_OUTCOMES.get(child.state, "failed")
            case "operation_completed":
                end = event.operation_completed
                failed = end.WhichOneof("outcome") == "error"
                line, note = self._steps.get(end.operation_id), name_of_error(end.error)
                outcome = "failed" if failed else "done"
            case _:
                line = self._steps.get(event.operation_expired.operation_id)
                outcome, note = "failed", "expired"
        if line is not None:
            line.outcome, line.note = outcome, note

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
        for item in self.run.stop.waiting_for:
            line.append(f"\nwaits for {safe(item)}", style="dim")
        if self.run.HasField("pause"):
            line.append(f"\n{safe(pause_text(self.run.pause), lines=True)}", style="yellow")
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


def pause_text(pause: pb.RunPause) -> str:
    """Who holds a run, or will at its next boundary; or what its replay found."""
    if pause.HasField("divergence"):
        at = pause.divergence
        return (
            f"held: its code no longer fits its log at {at.step_id}\n"
            f"  recorded  {at.recorded}\n  found     {at.found}"
        )
    by = f" by {pause.requested_by}" if pause.requested_by else ""
    return f"held{by}" if pause.in_effect else f"will be held{by} at its next boundary"


def _took(finished: pb.StepFinished | pb.ToolCallFinished) -> str:
    seconds = finished.duration.ToTimedelta().total_seconds()
    return f"{seconds:.1f} s" if seconds >= 0.1 else ""


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
