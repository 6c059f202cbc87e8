"""How every call is made: credential, deadline, repetition, typed errors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

import grpc

from onbelay_client.errors import Aborted, OnbelayError, ResourceExhausted, Unavailable, error_of

Request = TypeVar("Request")
Reply = TypeVar("Reply")

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0
# gRPC's own deadline of a stream: one that a broken proxy holds open for ever is made anew.
STREAM_SECONDS = 900.0


def new_request_id() -> str:
    """A name for one request, so that repeating it has no second effect."""
    return str(uuid4())


@dataclass(frozen=True, slots=True)
class Caller:
    """Makes calls with one credential and one measure of patience. Safe to share by threads."""

    api_key: str
    deadline_seconds: float = 30.0
    """How long one call may take, repetitions included."""
    patience_seconds: float = 30.0
    """How long a server that is away is called again. 0: once."""
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return (("authorization", f"Bearer {self.api_key}"),)

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Reply],
        request: Request,
        *,
        deadline_seconds: float | None = None,
    ) -> Reply:
        """Call until it succeeds, fails for good, or patience or deadline end.

        Repeated are UNAVAILABLE and what the server says may be repeated (RetryInfo). Only for
        requests that are harmless to repeat: reads, and changes that carry a request_id.
        """
        seconds = self.deadline_seconds if deadline_seconds is None else deadline_seconds
        began = self.monotonic()
        attempt = 0
        while True:
            left = seconds - (self.monotonic() - began)
            try:
                return method(request, timeout=max(left, 0.001), metadata=self.metadata)
            except grpc.RpcError as raised:
                error = error_of(raised)
            pause = self.pause_before(attempt, error)
            spent = self.monotonic() - began
            if pause is None or spent + pause > min(self.patience_seconds, seconds):
                raise error
            self.sleep(pause)
            attempt += 1

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Reply], request: Request
    ) -> grpc._CallIterator[Reply]:
        """Open a stream once. Its errors are gRPC's own: see `error_of`."""
        return method(request, timeout=STREAM_SECONDS, metadata=self.metadata)

    def pause_before(self, attempt: int, error: OnbelayError) -> float | None:
        """Seconds to wait before repetition `attempt` (from 0); None when it would not help."""
        may_repeat = isinstance(error, Unavailable) or (
            isinstance(error, Aborted | ResourceExhausted) and error.retry_after_seconds is not None
        )
        if not may_repeat:
            return None
        return self.backoff(attempt, error.retry_after_seconds)

    def backoff(self, attempt: int, retry_after_seconds: float | None) -> float:
        """Seconds to wait before repetition `attempt` (from 0), at least what the server asks."""
        longest = min(FIRST_BACKOFF_SECONDS * 2 ** min(attempt, 10), LONGEST_BACKOFF_SECONDS)
        # Many clients of one server that comes back must not call in the same moment.
        return max(random.uniform(longest / 2, longest), retry_after_seconds or 0.0)
