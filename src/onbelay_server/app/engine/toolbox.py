"""The tool calls of one run that are on their way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from onbelay_agent.protocol import MAX_INLINE_BYTES, Cancel
from onbelay_server.app.engine.turn import Item, ToolEnd
from onbelay_server.app.governance.broker import Broker, Permit
from onbelay_server.domain.event import StepError, ToolCallFinished
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.failpoints import pass_by
from onbelay_server.ports.tools import ToolError

log = logging.getLogger(__name__)


class Toolbox:
    """Sends permitted calls and says how they ended."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        keep: Callable[[bytes], Awaitable[str]],
        hear: Callable[[Sequence[ToolEnd]], None],
        limit_seconds: float,
    ) -> None:
        """`keep` stores a result too large for the log and gives its SHA-256. `limit_seconds`: the
        longest call, unless its agent asked for less."""
        self._broker = broker
        self._clock = clock
        self._keep = keep
        self._hear = hear
        self._limit_seconds = limit_seconds
        self._calls: dict[asyncio.Task[None], Permit] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a call is in flight."""
        return bool(self._calls)

    def holds_unrepeatable(self) -> bool:
        """Whether a call is in flight that may not be sent a second time."""
        return any(not permit.may_repeat for permit in self._calls.values())

    def follow(self, items: Sequence[Item], permits: Mapping[str, Permit]) -> None:
        """A turn is recorded: end the calls it cancelled and start those it permitted."""
        unwanted = {
            f"tool {step_id}"
            for one in items
            if isinstance(one, Cancel)
            for step_id in one.step_ids
        }
        for call in list(self._calls):
            if call.get_name() in unwanted:
                call.cancel()
        for step_id, permit in permits.items():
            task = asyncio.create_task(self._call(step_id, permit), name=f"tool {step_id}")
            self._calls[task] = permit
            task.add_done_callback(lambda done: self._calls.pop(done, None))

    async def cancel(self) -> None:
        """Cancel what is in flight; its outcome is then unknown and nothing is said of it."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _call(self, step_id: str, permit: Permit) -> None:
        begun = self._clock.monotonic()
        result_json, content_sha256, error = None, "", None
        seconds = min(permit.timeout_seconds or self._limit_seconds, self._limit_seconds)
        try:
            async with asyncio.timeout(seconds):
                await pass_by("after_intent_before_sent")
                result_json = await self._broker.send(permit)
                await pass_by("after_tool_sent_before_recorded")
            if len(result_json) > MAX_INLINE_BYTES:
                content_sha256, result_json = await self._keep(result_json.encode()), None
        except TimeoutError:
            error = StepError(
                type="ToolFailed", message=f"no result within {seconds:g} s", reason="TIMED_OUT"
            )
        except ToolError as failure:
            error = StepError(type=failure.type, message=failure.message)
        except Exception:
            log.exception("a tool broke", extra={"action": "tool_broke", "tool": permit.tool})
            error = StepError(type="ToolFailed", message=f"the tool {permit.tool!r} broke")
        finished = ToolCallFinished(
            call_id=step_id,
            tool=permit.tool,
            result_json=result_json,
            error=error,
            duration_us=int((self._clock.monotonic() - begun) * 1_000_000),
        )
        self._hear([ToolEnd(step_id=step_id, finished=finished, content_sha256=content_sha256)])
