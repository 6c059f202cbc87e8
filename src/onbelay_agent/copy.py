"""One execution of an agent's code, from its top: asks, releases, parks and ends.

The driver turns the run's own loop from plain callbacks of the host's loop. Whenever the agent has
nothing left to do it decides, in this order: the code is done; results that nobody wants are passed
over; a recorded result is released; what was asked is submitted as one batch; a new result is
released; it waits for others; it is stuck.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import platform
import threading
from asyncio import events
from collections.abc import Callable
from typing import Any

from onbelay_agent.branch import Branch
from onbelay_agent.call import Call
from onbelay_agent.calls import Calls
from onbelay_agent.context import Context
from onbelay_agent.definition import AgentDefinition
from onbelay_agent.emits import Emits
from onbelay_agent.ending import Ending, end_of, raised
from onbelay_agent.errors import RefusedCall, RunEnding, RunStopped, RunSuspended, described
from onbelay_agent.journal import Diverged, Journal
from onbelay_agent.loop import RunLoop
from onbelay_agent.outbox import Outbox
from onbelay_agent.protocol import (
    PROTOCOL_VERSION,
    Begun,
    Ended,
    FromHost,
    Go,
    Host,
    Parked,
    Pulse,
    Ready,
    Record,
    Recorded,
    Start,
    Stop,
    Suspend,
)
from onbelay_agent.releases import Releases
from onbelay_agent.task import RunTask, RunTimer, contained_errors
from onbelay_agent.threads import refuse_threads
from onbelay_agent.version import Versions
from onbelay_agent.works import Works

logger = logging.getLogger("onbelay_agent")

HANDLES_A_TURN = 5_000
"""Callbacks the agent may run before the host's loop has its turn again."""
HANDLES_A_STAGE = 1_000_000
"""Callbacks without an idle after which the agent counts as stuck."""
SLICE_SECONDS = 0.01
PULSE_SECONDS = 1.0


class Copy:
    """See the module. Everything happens on the host's loop; `receive` is called there too.

    Constructing it sends Ready. It runs from Go on and sends Ended exactly once; after that it
    holds no task, timer or thread but those Ended names as abandoned."""

    def __init__(
        self, definition: AgentDefinition, host: Host, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.definition = definition
        self.host = host
        self.host_loop = loop
        self.thread_id = threading.get_ident()
        self.start: Start
        self.versions: Versions
        refuse_threads()
        self.run_loop = RunLoop(self)  # type: ignore[abstract]
        self.finishers: list[Callable[[], Any]] = []
        self.backoff = 1.0
        """Factor on the waits between a step's retries; a host of tests sets 0."""
        self.outbox = Outbox(host, loop, self._lost)
        self.emits = Emits(self)
        self.works = Works(self)
        self.calls = Calls(self.outbox, self.emits, self.works.cancel)
        self.releases = Releases(self.calls, self.run_loop, host, loop, self._wake, self._lost)
        self.live = False
        """Every recorded result is released: the log may be added to."""
        self.ending: type[RunEnding] | None = None
        """Why calls refuse; decides the outcome once set."""
        self.ended = False
        self._records: list[Record] = []
        self._root: RunTask | None = None
        self._ender: Ending | None = None
        self._handles = 0
        self._scheduled = False
        self._parked: tuple[int, tuple[str, ...]] | None = None
        self._pulse: asyncio.TimerHandle | None = None
        python = ".".join(platform.python_version_tuple()[:2])
        fingerprint = definition.fingerprint
        host.send(Ready(protocol=PROTOCOL_VERSION, python=python, fingerprint=fingerprint))

    # ---- from the host ---------------------------------------------------------------------------

    def receive(self, frame: FromHost) -> None:
        """Take a frame from the host, on the host's loop, in order."""
        if self.ended:
            return
        match frame:
            case Recorded(record=record):
                self._recorded(record)
            case Begun():
                self._begun(frame)
            case Start():
                self.start = frame
                self._records = list(frame.journal)
            case Go():
                if self.ending is None:
                    self._go()
            case Stop():
                self._end(RunStopped, Ended(outcome="stopped"), frame.grace_seconds)
            case Suspend():
                grace = self.definition.limits.grace_seconds
                self._end(RunSuspended, Ended(outcome="suspended"), grace)

    def abandon(self) -> None:
        """Drop this copy as if its process had died: it sends nothing more, not even Ended."""
        if not self.ended:
            self.ended = True
            self.outbox.abandon()
            self.emits.discard()
            self.works.cancel_all()
            self._end(RunSuspended, Ended(outcome="suspended"), 0.0)

    def _recorded(self, record: Record) -> None:
        if self._root is None:
            self._records.append(record)
        elif record.type == "finished":
            self.calls.journal.results.append(record)
            self._wake()
        elif record.type == "cancelled":
            self.calls.forget(record.step_id)

    def _begun(self, frame: Begun) -> None:
        batch = self.calls.begun()
        if self.ending is not None:
            return
        started = False
        for call in batch:
            if call.state != "begun":
                continue
            if call.id in frame.held:
                call.held = True
            elif call.plan is not None:
                self.works.start(call, call.plan)
                started = True
        if not started or self.calls.cancelling:
            self._wake()

    def _go(self) -> None:
        start = self.start
        self.calls.journal = Journal(self._records)
        self._records = []
        self.emits.written = start.emitted
        self.run_loop.now_us = start.start_us
        root = self.run_loop.plant(start.seed)
        self.versions = Versions(self.calls)
        try:
            arguments = self.definition.bind(start.input_json)
        except Exception as error:
            logger.info("The agent's input was refused", exc_info=error)
            self._end(RunStopped, raised(self.definition, error), 0.0)
            return
        coro = self.definition.invoke(Context(self), arguments)
        self.run_loop.driver = self.thread_id
        self._root = self.run_loop.start(coro, root, contextvars.Context())
        self.run_loop.driver = None
        self._pulse = self.host_loop.call_later(PULSE_SECONDS, self._beat)
        self._wake()

    # ---- from the agent --------------------------------------------------------------------------

    def branch(self) -> Branch:
        """The branch of the code that is running. Raises what ends the run, once it is ending."""
        if self._ender is not None:
            self._ender.refuse()
            return self.run_loop.dead_branch
        return self.run_loop.current_branch()

    async def wait(self, call: Call) -> Any:
        """Ask for a call and wait for its release; runs on the run's own loop."""
        if self._ender is not None:
            self._ender.refuse()
            await self.run_loop.create_future()
        if events._get_running_loop() is not self.run_loop:
            raise RefusedCall(f"{call.id} was awaited outside of its run's own code")
        call.future = self.run_loop.call_future()
        self.calls.ask(call)
        try:
            return await call.future
        except (asyncio.CancelledError, GeneratorExit):
            if self.ending is None:
                self.calls.cancel(call)
            raise

    def timer_set(self, timer: RunTimer) -> None:
        """A timer of the run's loop: a durable wait like any other call."""
        if self.ending is not None:
            return
        timer.wait = call = Call.of_timer(timer, self.run_loop.current_branch())
        self.calls.ask(call)

    def timer_cancelled(self, timer: RunTimer) -> None:
        """The agent no longer waits for it."""
        if timer.wait is not None and self.ending is None:
            self.calls.cancel(timer.wait)

    # ---- the driver ------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.host_loop.call_soon(self._drive)

    def _drive(self) -> None:
        self._scheduled = False
        if self.ending is not None or self._root is None:
            return
        until = self.host_loop.time() + SLICE_SECONDS
        self.run_loop.driver = self.thread_id
        try:
            while self._step(self._root):
                if self.host_loop.time() > until:
                    self._wake()
                    return
        except Diverged as problem:
            self._lost(problem)
        except BaseException as error:
            if not isinstance(error, (Exception, *contained_errors())):
                raise
            logger.exception("The copy of a run failed")
            self._lost(f"the copy itself failed: {': '.join(described(error))}")
        finally:
            self.run_loop.driver = None

    def _step(self, root: RunTask) -> bool:
        """Run the agent to idle and do what is next; False when there is nothing to do now."""
        calls = self.calls
        self._handles += self.run_loop.turn(HANDLES_A_TURN)
        if not self.run_loop.idle:
            if self._handles < HANDLES_A_STAGE:
                return True
            self._stuck("the agent never waits: it polls in a loop of sleep(0)")
            return False
        self._handles = 0
        calls.check_asked()
        if root.done():
            if not self.live:
                calls.journal.check_returned(calls.stage)
            self._returned(root)
            return False
        if self.releases.pass_over():
            return True
        if not self.live:
            calls.check_replay()
        if calls.journal.replay_left:
            return self.releases.release()
        if not self.live:
            calls.check_replayed()
            self.live = True
            self.run_loop.quiet = False
        calls.submit()
        if calls.journal.results:
            return self.releases.release()
        self.emits.flush_soon()
        if not (calls.submitting or self.outbox.busy or self.releases.fetching):
            self._rest()
        return False

    def _rest(self) -> None:
        """Nothing is to be released: wait for steps, park, or find that nothing can ever happen."""
        if self.calls.working:
            return
        waiting = self.calls.waiting()
        if not waiting:
            tasks = self.run_loop.unfinished()
            places = "; ".join(f"{task.branch.path} {task.place()}" for task in tasks[:10])
            self._stuck(f"nothing it waits for can ever happen: {places}")
        else:
            parked = (self.calls.stage, tuple(call.id for call in waiting))
            if parked != self._parked:
                self._parked = parked
                self.emits.flush()
                self.outbox.send(Parked(stage=parked[0], waiting=parked[1]))

    def _beat(self) -> None:
        if self._parked is None or self._parked[0] != self.calls.stage:
            self.outbox.send(Pulse())
        self._pulse = self.host_loop.call_later(PULSE_SECONDS, self._beat)

    # ---- the end ---------------------------------------------------------------------------------

    def _returned(self, root: RunTask) -> None:
        self._end(RunStopped, end_of(self.definition, root, self.start.run_id), 0.0)

    def _stuck(self, message: str) -> None:
        if self.run_loop.intruder:
            message = f"{message}; earlier refused: {self.run_loop.intruder}"
        self._end(RunStopped, Ended(outcome="stuck", message=message), 0.0)

    def _lost(self, problem: Diverged | str) -> None:
        """The agent's code and its log do not fit, or the log cannot be read: hold the run."""
        ended = Ended(outcome="diverged", message=str(problem))
        if isinstance(problem, Diverged):
            ended = dataclasses.replace(
                ended, step_id=problem.step_id, recorded=problem.recorded, found=problem.found
            )
        self._end(RunStopped, ended, 0.0)

    def _end(self, ending: type[RunEnding], ended: Ended, grace_seconds: float) -> None:
        if self._ender is not None:
            self._ender.hasten(grace_seconds)
            return
        self.ending = ending
        if self._pulse is not None:
            self._pulse.cancel()
        self._ender = Ending(self, ended, grace_seconds)
        self._ender.begin()
