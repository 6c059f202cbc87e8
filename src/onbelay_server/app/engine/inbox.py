"""What happened to a run since its executor last looked."""

from __future__ import annotations

from collections.abc import Sequence

from onbelay_agent.protocol import ToHost
from onbelay_server.app.engine.turn import ToolEnd
from onbelay_server.app.waiter import Waiter
from onbelay_server.ports.harness import CopyLost


class Inbox:
    """Collects what an executor must take up; it takes all at once. Never blocks the sender."""

    def __init__(self) -> None:
        self._items: list[ToHost | ToolEnd | CopyLost] = []
        self._waiter = Waiter()
        self._seen = 0
        self._is_doubtful = True

    def put(self, items: Sequence[ToHost | ToolEnd | CopyLost]) -> None:
        """Something the copy said, or a tool's end."""
        self._items.extend(items)
        self._waiter.wake()

    def hint(self, last_sequence: int) -> None:
        """The log has grown to this sequence, perhaps by somebody else's hand."""
        if last_sequence > self._seen:
            self._seen = last_sequence
            self._waiter.wake()

    def recheck(self) -> None:
        """Something may have changed: look, whatever the hints say."""
        self._is_doubtful = True
        self._waiter.wake()

    def is_behind(self, position: int) -> bool:
        """Whether the log may hold more than up to `position`. Asking settles the doubt."""
        doubtful, self._is_doubtful = self._is_doubtful, False
        return doubtful or self._seen > position

    async def wait(self, timeout_seconds: float) -> None:
        """Return when there is something, or after the timeout."""
        if not await self._waiter.wait(timeout_seconds):
            self._is_doubtful = True

    def close(self) -> None:
        """Nobody waits any more."""
        self._waiter.close()

    def take(self) -> list[ToHost | ToolEnd | CopyLost]:
        """Everything since the last take, in order."""
        items, self._items = self._items, []
        return items
