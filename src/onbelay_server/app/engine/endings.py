"""How a copy's end becomes its run's: finished, failed, stopped, held or begun anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onbelay_agent.protocol import Ended
from onbelay_server.app.engine.batch import Batch
from onbelay_server.app.engine.consequences import with_consequences
from onbelay_server.app.engine.files import Files
from onbelay_server.domain.agent import AgentRevision, OnCodeChange
from onbelay_server.domain.change import Change, NewEvent, Rows
from onbelay_server.domain.lifecycle import ended, moved
from onbelay_server.domain.run import Pause, Run, RunError
from onbelay_server.domain.state import FailureReason, RunState
from onbelay_server.domain.stopping import wound_down
from onbelay_server.domain.transition import Trigger

MAX_MESSAGE_CHARACTERS = 4000


class Endings:
    """Decides the ends of one run's epochs, with all that follows from them."""

    def __init__(
        self,
        revision: AgentRevision,
        files: Files,
        chance: Callable[[], bytes],
        has_effects: Callable[[], bool],
    ) -> None:
        """`has_effects`: whether the journal records anything that happened outside."""
        self._revision = revision
        self._files = files
        self._chance = chance
        self._has_effects = has_effects

    def decide(self, batch: Batch, end: Ended, run: Run, rows: Rows, now_us: int) -> Change[Run]:
        """What the copy's last frame makes of the run."""
        if run.state is RunState.STOPPING:
            after, moves = wound_down(
                run,
                now_us,
                unstoppable=end.abandoned,
                output_json=end.output_json,
                output_artifact_id=self._output(batch, end, now_us),
            )
        elif end.outcome in ("suspended", "stopped"):
            return Change(result=run)  # it was told to, and what told it decides
        elif end.outcome == "diverged":
            after, moves = self._diverged(end, run, now_us)
        elif end.outcome == "returned":
            after, moves = ended(
                run,
                Trigger.RETURN,
                RunState.SUCCEEDED,
                now_us,
                output_json=end.output_json,
                output_artifact_id=self._output(batch, end, now_us),
            )
        else:
            after, moves = ended(run, Trigger.RAISE, RunState.FAILED, now_us, error=_error(end))
        return with_consequences(rows, after, moves, now_us, self._revision.limits)

    def _output(self, batch: Batch, end: Ended, now_us: int) -> str:
        if not end.content_sha256:
            return ""
        return self._files.keep(batch, "output", end.content_sha256, self._chance(), now_us)

    def _diverged(self, end: Ended, run: Run, now_us: int) -> tuple[Run, list[NewEvent]]:
        """Changed code no longer fits the journal: hold it, fail it, or begin anew."""
        message = end.message[:MAX_MESSAGE_CHARACTERS]
        choice = self._revision.on_code_change
        if choice is OnCodeChange.FAIL:
            error = RunError(reason=FailureReason.DIVERGED, message=message)
            return ended(run, Trigger.RAISE, RunState.FAILED, now_us, error=error)
        if choice is OnCodeChange.RESTART and not self._has_effects():
            after, event = moved(
                run,
                Trigger.LOSE,
                RunState.QUEUED,
                now_us,
                reason=f"begun anew, its code changed: {message}",
                owner=None,
                lease_until_us=None,
                ready_us=now_us,
                code_python="",
                code_fingerprint="",
            )
            return replace(after, replay_after=run.last_sequence + 1), [event]
        pause = Pause(
            request_us=now_us,
            step_id=end.step_id[:1000],
            recorded=end.recorded[:MAX_MESSAGE_CHARACTERS],
            found=end.found[:MAX_MESSAGE_CHARACTERS],
        )
        return held(run, pause, message, now_us)


def held(run: Run, pause: Pause, message: str, now_us: int) -> tuple[Run, list[NewEvent]]:
    """The run, PAUSED until its code fits its journal again."""
    after, event = moved(
        run,
        Trigger.PAUSE,
        RunState.PAUSED,
        now_us,
        reason=message,
        owner=None,
        lease_until_us=None,
        error=RunError(reason=FailureReason.DIVERGED, message=message),
        pause=pause,
    )
    return after, [event]


def _error(end: Ended) -> RunError:
    reason = FailureReason.STUCK if end.outcome == "stuck" else FailureReason.AGENT_ERROR
    if end.error_type == "InvalidInput":
        reason = FailureReason.INVALID_INPUT
    message = f"{end.error_type}: {end.message}" if end.error_type else end.message
    return RunError(reason=reason, message=message[:MAX_MESSAGE_CHARACTERS])
