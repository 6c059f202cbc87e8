"""Frames on their way to the host, in order, behind the bytes they name."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from onbelay_agent.errors import described
from onbelay_agent.protocol import Begin, Host, ToHost

logger = logging.getLogger("onbelay_agent")


class Outbox:
    """Sends at once unless a frame before it still waits for its blobs to be kept."""

    def __init__(
        self, host: Host, loop: asyncio.AbstractEventLoop, lost: Callable[[str], None]
    ) -> None:
        self._host = host
        self._loop = loop
        self._lost = lost
        self._queue: deque[tuple[ToHost, Sequence[bytes]]] = deque()
        self._drain: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Something is still to be sent."""
        return bool(self._queue)

    def send(self, frame: ToHost, uploads: Sequence[bytes] = ()) -> None:
        """Send `frame` once all of `uploads` are kept and everything before it is sent."""
        if not self._queue and not uploads:
            self._host.send(frame)
            return
        self._queue.append((frame, uploads))
        if self._drain is None:
            self._drain = self._loop.create_task(self._send_queued())

    async def drained(self, seconds: float) -> None:
        """Wait until everything is sent, `seconds` at most."""
        if self._drain is not None:
            await asyncio.wait([self._drain], timeout=seconds)

    def forget_begins(self) -> None:
        """Nothing new may be recorded: drop the batches that are not sent yet."""
        kept = [item for item in self._queue if not isinstance(item[0], Begin)]
        if len(kept) != len(self._queue):
            self._queue.clear()
            self._queue.extend(kept)

    def abandon(self) -> None:
        """Drop everything and stop sending."""
        self._queue.clear()
        if self._drain is not None:
            self._drain.cancel()

    async def _send_queued(self) -> None:
        try:
            while self._queue:
                item = self._queue[0]
                for content in item[1]:
                    await self._host.put_blob(content)
                if self._queue and self._queue[0] is item:
                    self._queue.popleft()
                    self._host.send(item[0])
        except Exception as error:
            logger.exception("The host could not keep a blob")
            self._queue.clear()
            self._lost(f"a value could not be kept: {described(error)[1]}")
        finally:
            self._drain = None
