"""The end of copies whose runs wait without them, and what becomes of those that do not end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from onbelay_agent.protocol import Ended
from onbelay_server.app.engine.parts import Parts
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.error import Refusal, Unavailable
from onbelay_server.domain.event import LogWritten
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import LogLevel
from onbelay_server.ports.harness import Copy, CopyLost

log = logging.getLogger(__name__)

UNWIND_SECONDS = 5.0
"""How long a suspended copy may take to end before it is killed."""


class Unwinding:
    """Watches over the end of one executor's copy."""

    def __init__(self, parts: Parts, run: Run) -> None:
        self._parts = parts
        self._run = run
        self.until: float | None = None
        """Monotonic time by which the copy must have ended; None while it need not."""
        self._has_ended = False

    def begin(self) -> None:
        """The copy was told to end."""
        self.until = self._parts.clock.monotonic() + UNWIND_SECONDS

    def is_over(self, said: Sequence[object]) -> bool:
        """Whether the copy has ended, or its time is up."""
        assert self.until is not None, "begun"
        self._has_ended |= any(isinstance(one, Ended | CopyLost) for one in said)
        return self._has_ended or self._is_late

    @property
    def _is_late(self) -> bool:
        return self.until is not None and self._parts.clock.monotonic() >= self.until

    async def end(self, copy: Copy) -> None:
        """Nothing more is done with the copy: kill it, wherever it is."""
        if self.until is None or self._has_ended or not copy.is_to_blame():
            await copy.kill()
            return
        is_late = self._is_late
        left = await copy.kill()
        if not left and not is_late:
            return  # the run went on before the copy's time was up
        text = "the copy did not end when it was suspended and was killed"
        if left:
            self._parts.stubborn.add(self._run.id)
            text = f"{text}; still running: {', '.join(left)}"
        log.warning(text, extra={"action": "unwind_killed", "run_id": self._run.id})
        try:
            await self._parts.store.write(Reads(runs=[self._run.id]), _noting(self._run.id, text))
        except (Refusal, Unavailable):
            return  # the operator's log has it


def _noting(run_id: str, text: str) -> Callable[[Rows, int], Change[None]]:
    def note(rows: Rows, now_us: int) -> Change[None]:
        run = rows.run(run_id)
        if run is None or run.state.is_final:
            return Change(result=None)
        event = LogWritten(level=LogLevel.WARNING, message=text)
        return Change(result=None, events=[NewEvent(run_id, event)])

    return note
