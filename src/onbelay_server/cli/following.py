"""Following a run on the screen until it ended, asking the person whatever it asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

from onbelay_client import Client, OnbelayError, RunWatch, is_final
from onbelay_client import contract as pb
from onbelay_server.cli.decision import decide, how_to_decide, show
from onbelay_server.cli.event_line import event_line
from onbelay_server.cli.outcome import NEEDS_PERSON, waits_for_person
from onbelay_server.cli.run_view import RunView
from onbelay_server.cli.terminal import err

# Without a terminal every progress report would be a line of its own.
PROGRESS_LINE_SECONDS = 2.0
# A server that was there and starts anew.
RESTART_SECONDS = 60.0


def watching(client: Client, run_id: str, after: int = 0) -> RunWatch:
    """A watch that says so on stderr when the server is away, and outlasts its restart."""

    def say(_: OnbelayError) -> None:
        err().print(Text("The server is away; the watch goes on when it is back.", style="dim"))

    watch = client.runs.watch(run_id, after)
    watch.patience_seconds = RESTART_SECONDS
    watch.on_cut = say
    return watch


@dataclass(slots=True, kw_only=True)
class Follower:
    """Shows one run on a console, live on a terminal and as lines elsewhere."""

    client: Client
    console: Console
    on_approval: Callable[[pb.Approval], bool] | None = None
    """Decides an approval in the person's place; False leaves it. None: the person is asked when
    `may_ask`."""
    may_ask: bool = False
    leaves_when_asked: bool = False
    """Return as soon as the run needs a person and nobody here decides."""
    may_decide_later: bool = True
    """Whether what is left can be decided by other commands; they are named then."""

    def follow(self, run_id: str, after: int = 0) -> pb.Run:
        """Show the run from a sequence on until it ended; gives the run as it is then."""
        watch = watching(self.client, run_id, after)
        view = RunView()
        asked_at = 0
        live = self._live(view)
        lines = _Lines(self.console)
        try:
            for reply in watch:
                view.take(reply)
                if live is None:
                    for event in reply.events:
                        lines.show(event)
                run = view.run
                if run.state not in NEEDS_PERSON or not view.is_current:
                    continue
                if asked_at == run.last_sequence:
                    continue
                asked_at = run.last_sequence
                pending = self.client.approvals.list(run_id, states=[pb.APPROVAL_STATE_PENDING])
                if not pending.approvals:
                    # It waits for a message or is held: nothing to show that is not shown.
                    # One that a timer lets go on too is followed like every other.
                    if self.leaves_when_asked and waits_for_person(run):
                        return run
                    continue
                if live is not None:
                    live.stop()
                if not self._ask(pending.approvals) and self.leaves_when_asked:
                    return run
                # A new one: the old would draw over what was shown in between.
                live = self._live(view)
        finally:
            if live is not None:
                live.stop()
        return view.run if is_final(view.run) else self.client.runs.get(run_id).run

    def _live(self, view: RunView) -> Live | None:
        """A running live display of the view; None without a terminal."""
        if not self.console.is_terminal:
            return None
        live = Live(view, console=self.console, refresh_per_second=8)
        live.start()
        return live

    def _ask(self, pending: Iterable[pb.Approval]) -> bool:
        """Have everything that is asked decided; False when something was left."""
        left = False
        for listed in pending:
            approval = self.client.approvals.get(listed.id).approval
            if approval.state != pb.APPROVAL_STATE_PENDING:
                continue
            show(approval, self.console)
            if self.on_approval is not None:
                decided = self.on_approval(approval)
            elif self.may_ask and approval.can_decide:
                decided = decide(self.client, approval, self.console)
            else:
                decided = False
            if not decided:
                left = True
            if not decided and self.may_decide_later:
                self.console.print(Text(f"Decide it with: {how_to_decide(approval)}"))
        return not left


class _Lines:
    """Events as plain lines, with progress thinned out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._note = ""
        self._progress_shown = 0.0

    def show(self, event: pb.RunEvent) -> None:
        if event.WhichOneof("payload") == "progress_reported":
            report = event.progress_reported
            now = time.monotonic()
            is_end = report.HasField("total") and report.done >= report.total
            recent = now - self._progress_shown < PROGRESS_LINE_SECONDS
            if report.note == self._note and recent and not is_end:
                return
            self._note, self._progress_shown = report.note, now
        line = event_line(event)
        if line is not None:
            self._console.print(Text(line))
