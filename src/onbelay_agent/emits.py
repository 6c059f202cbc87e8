"""What the agent tells its watchers: placed, buffered, flushed soon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from onbelay_agent import values
from onbelay_agent.errors import ValueNotStorable
from onbelay_agent.protocol import Emit, Emitted
from onbelay_agent.work import INSIDE, StepWork

if TYPE_CHECKING:
    from onbelay_agent.copy import Copy

FLUSH_GAP_SECONDS = 0.005
"""How soon one flush may follow another; after a quiet moment an emit leaves at once."""
MAX_EMIT_BYTES = 128 * 1024
MAX_FRAME_BYTES = 400 * 1024
"""What travels in one frame of emits alone, generously estimated."""
MAX_RIDER_BYTES = 64 * 1024
"""What may travel with a frame of another kind."""

Kind = Literal["text", "progress", "report", "log"]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Emits:
    """The emits of one copy. What a place already recorded is not written again."""

    def __init__(self, copy: Copy) -> None:
        self.written: Mapping[str, int] = {}
        """The highest recorded ordinal of each branch."""
        self._copy = copy
        self._pending: list[Emit] = []
        self._flush: asyncio.Handle | None = None
        self._flushed_at = float("-inf")

    def add(
        self,
        kind: Kind,
        text: str,
        *,
        level: Level = "INFO",
        done: float | None = None,
        total: float | None = None,
        data: Any = None,
    ) -> None:
        """Emit from agent code or from a step's function, in any thread of it.

        Raises ValueNotStorable when it is too large or cannot be encoded, RunStopped in a step's
        function that nobody waits for any more."""
        values.require_unicode(text)
        data_json = "null" if data is None else values.encode(data)
        if _size_bytes(text) + _size_bytes(data_json) > MAX_EMIT_BYTES:
            raise ValueNotStorable(
                f"more than {MAX_EMIT_BYTES // 1024} KB in one {kind}: save an artifact"
            )
        copy = self._copy
        inside = INSIDE.get()
        if inside is None:
            if copy.ending is None:
                branch = copy.run_loop.current_branch()
                ordinal = branch.next_ordinal()
                if ordinal > self.written.get(branch.path, 0):
                    place = f"{branch.path}:emit#{ordinal}"
                    self._append(place, kind, text, level, done, total, data_json)
            return
        inside.refuse_if_unwanted()
        if threading.get_ident() == copy.thread_id:
            self._add_inside(inside, kind, text, level, done, total, data_json)
        else:
            copy.host_loop.call_soon_threadsafe(
                self._add_inside, inside, kind, text, level, done, total, data_json
            )

    def retried(self, work: StepWork, message: str) -> None:
        """A step's function is about to be tried again."""
        self._add_inside(work, "log", message, "WARNING", None, None, "null")

    def _add_inside(
        self,
        work: StepWork,
        kind: Kind,
        text: str,
        level: Level,
        done: float | None,
        total: float | None,
        data_json: str,
    ) -> None:
        if work.wanted and not self._copy.ended:
            self._append(work.next_place(), kind, text, level, done, total, data_json)

    def _append(
        self,
        place: str,
        kind: Kind,
        text: str,
        level: Level,
        done: float | None,
        total: float | None,
        data_json: str,
    ) -> None:
        self._pending.append(
            Emit(
                place=place,
                kind=kind,
                text=text,
                level=level,
                done=done,
                total=total,
                data_json=data_json,
            )
        )
        self.flush_soon()

    def flush_soon(self) -> None:
        """See to it that what is pending is sent, unless the copy still replays."""
        if self._pending and self._flush is None and self._copy.live:
            loop = self._copy.host_loop
            wait_seconds = self._flushed_at + FLUSH_GAP_SECONDS - loop.time()
            if wait_seconds > 0:
                self._flush = loop.call_later(wait_seconds, self.flush)
            else:
                self._flush = loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is pending."""
        self._flushed_at = self._copy.host_loop.time()
        emits = self.take()
        if emits:
            self._copy.outbox.send(Emitted(emits=emits))

    def take(self) -> tuple[Emit, ...]:
        """What is pending, to travel with another frame; what exceeds a frame is sent before it."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if not self._pending:
            return ()
        pending, self._pending = self._pending, []
        frame: list[Emit] = []
        frame_bytes = 0
        for emit in pending:
            emit_bytes = 2 * (_size_bytes(emit.text) + _size_bytes(emit.data_json)) + 200
            if frame and frame_bytes + emit_bytes > MAX_FRAME_BYTES:
                self._copy.outbox.send(Emitted(emits=tuple(frame)))
                frame, frame_bytes = [], 0
            frame.append(emit)
            frame_bytes += emit_bytes
        if frame_bytes > MAX_RIDER_BYTES:
            self._copy.outbox.send(Emitted(emits=tuple(frame)))
            return ()
        return tuple(frame)

    def discard(self) -> None:
        """Forget what is pending: the log gets nothing more."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._pending = []


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
