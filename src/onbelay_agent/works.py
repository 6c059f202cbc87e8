"""The steps that run beside the agent, and how they are recorded when they are done."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from onbelay_agent.call import Call
from onbelay_agent.protocol import MAX_INLINE_BYTES, Finish
from onbelay_agent.work import Outcome, StepPlan, StepWork

if TYPE_CHECKING:
    from onbelay_agent.copy import Copy


class Works:
    """The step work of one copy."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        self._works: dict[str, StepWork] = {}

    def start(self, call: Call, plan: StepPlan) -> None:
        """Run a step whose start is recorded."""
        copy = self._copy
        self._works[call.id] = work = StepWork(
            call.id, call.name, call.attempt, plan, copy.host_loop, copy.emits.retried, self._done
        )
        work.backoff = copy.backoff
        work.run_id = copy.start.run_id
        work.start()

    def cancel(self, step_id: str) -> None:
        """The agent no longer wants it."""
        work = self._works.get(step_id)
        if work is not None:
            work.cancel()

    def cancel_all(self) -> None:
        """Nobody wants any of them."""
        for work in self._works.values():
            work.cancel()

    def cut_off(self) -> None:
        """None of them has any time left."""
        for work in self._works.values():
            work.cut_off()

    def hurry(self) -> None:
        """Tell every step that the run is stopping; each may still finish."""
        for work in self._works.values():
            work.hurry()

    def left(self) -> list[StepWork]:
        """Steps whose task or thread may still run."""
        return list(self._works.values())

    def _done(self, work: StepWork, outcome: Outcome | None) -> None:
        copy = self._copy
        if not work.alive:
            self._works.pop(work.step_id, None)
        if copy.ended or outcome is None or not work.wanted:
            return
        work.wanted = False
        uploads: list[bytes] = []
        ok_json, sha256 = outcome.ok_json, ""
        if ok_json is not None and len(ok_json) > MAX_INLINE_BYTES // 4:
            content = ok_json.encode()
            if len(content) > MAX_INLINE_BYTES:
                uploads.append(content)
                ok_json, sha256 = None, hashlib.sha256(content).hexdigest()
        frame = Finish(
            step_id=work.step_id,
            stage=copy.calls.confirmed_stage,
            emits=copy.emits.take(),
            ok_json=ok_json,
            failure=outcome.failure,
            content_sha256=sha256,
            duration_us=outcome.duration_us,
        )
        copy.outbox.send(frame, uploads)
