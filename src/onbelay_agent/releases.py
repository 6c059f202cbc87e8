"""Giving the agent its results: one at a time, in the order of the log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from onbelay_agent.call import Call
from onbelay_agent.calls import Calls
from onbelay_agent.errors import ValueNotStorable, raised_by
from onbelay_agent.journal import Diverged
from onbelay_agent.loop import RunLoop
from onbelay_agent.protocol import Host, Record

logger = logging.getLogger("onbelay_agent")


class Releases:
    """Takes the next result of the log and lets the waiting code go on with it."""

    def __init__(
        self,
        calls: Calls,
        run_loop: RunLoop,
        host: Host,
        host_loop: asyncio.AbstractEventLoop,
        wake: Callable[[], None],
        lost: Callable[[Diverged | str], None],
    ) -> None:
        self._calls = calls
        self._run_loop = run_loop
        self._host = host
        self._host_loop = host_loop
        self._wake = wake
        self._lost = lost
        self._fetched: tuple[Record, bytes] | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._unheard: list[dict[str, Any]] = []
        """Messages of calls that were cancelled before they were given them."""
        self._unheard_us = 0

    @property
    def fetching(self) -> bool:
        """The next result's blob is on its way."""
        return self._fetch is not None

    def pass_over(self) -> bool:
        """Skip the results that come next and are not wanted any more; whether that gave the agent
        something.

        What was said to the run is not skipped with the call that took it: the next call for
        messages gets it. Here and not as a call ends, so that every replay does it at the same
        place: between two releases the agent's code does not run."""
        journal = self._calls.journal
        while journal.results:
            record = journal.results[0]
            call = self._calls.by_id.get(record.step_id)
            if call is None or call.state != "cancelled":
                break
            self._take(record)
            if call.kind == "MESSAGES" and record.ok_json is not None:
                self._unheard += json.loads(record.ok_json)
                self._unheard_us = record.time_us
        return bool(self._unheard) and self._hand_on()

    def release(self) -> bool:
        """Release the next result, which is wanted; False when its blob must be fetched first.
        Raises Diverged."""
        journal = self._calls.journal
        record = journal.results[0]
        call = self._calls.by_id.get(record.step_id)
        if call is None:
            raise Diverged(record.step_id, "as finished", "that the agent did not ask for it")
        blob: bytes | None = None
        if record.content_sha256:
            if self._fetched is None or self._fetched[0] is not record:
                if self._fetch is None:
                    self._fetch = self._host_loop.create_task(self._fetch_blob(record))
                return False
            blob, self._fetched = self._fetched[1], None
        self._take(record)
        call.state = "over"
        self._deliver(call, record, blob)
        return True

    def _take(self, record: Record) -> None:
        journal = self._calls.journal
        journal.results.popleft()
        if journal.replay_left:
            journal.replay_left -= 1
        del self._calls.by_id[record.step_id]

    def _hand_on(self) -> bool:
        """Give the messages nobody has heard to the oldest open call for messages, if there is one.
        Its own result, if one comes, is for the call after it."""
        calls = self._calls.by_id.values()
        open_calls = (one for one in calls if one.state in ("asked", "begun"))
        heir = next((one for one in open_calls if one.kind == "MESSAGES"), None)
        if heir is None:
            return False
        said, self._unheard = json.dumps(self._unheard), []
        self._calls.cancel(heir)
        record = Record(type="finished", step_id=heir.id, time_us=self._unheard_us, ok_json=said)
        self._deliver(heir, record, None)
        return True

    def _deliver(self, call: Call, record: Record, blob: bytes | None) -> None:
        self._calls.stage += 1
        if call.kind == "VERSION":
            return  # answered when it was asked; nobody's time goes on with it
        if record.time_us > self._run_loop.now_us:
            self._run_loop.now_us = record.time_us
        if call.timer is not None:
            self._run_loop.fire(call.timer)
            return
        future = call.future
        assert future is not None
        if record.failure is not None:
            future.set_exception(raised_by(record.failure))
            return
        try:
            future.set_result(call.decode(record, blob) if call.decode is not None else None)
        except ValueNotStorable as error:
            raise Diverged(call.id, "a result", f"that it does not fit: {error}") from None
        except Exception as error:  # noqa: BLE001 - raised where the agent waits for it
            future.set_exception(error)

    async def _fetch_blob(self, record: Record) -> None:
        try:
            self._fetched = (record, await self._host.get_blob(record.content_sha256))
        except LookupError:
            kept = f"a result kept as {record.content_sha256}"
            self._lost(Diverged(record.step_id, kept, "that it is no longer kept"))
        except Exception as error:
            logger.exception("The host could not give a blob")
            self._lost(f"{record.step_id}: its recorded result cannot be read: {error}")
        finally:
            self._fetch = None
        self._wake()

    async def end(self) -> None:
        """Leave no fetch behind."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])
