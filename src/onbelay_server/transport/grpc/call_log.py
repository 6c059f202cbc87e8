"""One line a call: who asked for what, how it ended and how long it took. Never what was in it."""

from __future__ import annotations

import logging
import secrets
import traceback

from onbelay_server.domain.principal import Principal
from onbelay_server.ports.clock import Clock
from onbelay_server.transport.grpc.errors import InternalFault

log = logging.getLogger("onbelay.calls")


class CallLog:
    """Collects what is worth saying about one call until it ends."""

    __slots__ = (
        "_caller",
        "_clock",
        "_method",
        "_started",
        "replies",
        "request_bytes",
        "response_bytes",
    )

    def __init__(self, clock: Clock, method: str, caller: Principal | None) -> None:
        self._clock = clock
        self._method = method
        self._caller = caller
        self._started = clock.monotonic()
        self.request_bytes = 0
        self.response_bytes = 0
        self.replies = 0

    def finish(self, code: str, reason: str = "") -> None:
        """The call is over. Called once."""
        if not log.isEnabledFor(logging.INFO):
            return
        caller = self._caller
        log.info(
            "call finished",
            extra={
                "action": "call_finished",
                "method": self._method,
                "code": code,
                "reason": reason,
                "tenant": caller.tenant if caller else "",
                "principal": caller.id if caller else "",
                "duration_seconds": round(self._clock.monotonic() - self._started, 6),
                "request_bytes": self.request_bytes,
                "response_bytes": self.response_bytes,
                "replies": self.replies,
            },
        )

    def fault(self, problem: BaseException) -> InternalFault:
        """Log a bug with its traceback; what the caller is told is the id it was logged under."""
        error_id = secrets.token_hex(8)
        log.error(
            "call failed",
            extra={
                "action": "call_failed",
                "method": self._method,
                "error_id": error_id,
                # Formatted here: a renderer that shows local variables would show tokens and
                # payloads.
                "exception": "".join(traceback.format_exception(problem)),
            },
        )
        return InternalFault(error_id)
