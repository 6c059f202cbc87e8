"""Runs: start, look at, watch, wait for and end them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import grpc

from onbelay.v1.run_service_pb2_grpc import RunServiceStub
from onbelay_client import contract as pb
from onbelay_client.calling import Caller, new_request_id
from onbelay_client.protojson import json_text
from onbelay_client.watching import RunWatch

FINAL_STATES = frozenset({pb.RUN_STATE_STOPPED, pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED})
"""States that nothing follows."""

# What the server allows; a wait that is longer is made of several.
_WAIT_SLICE_SECONDS = 30.0


def is_final(run: pb.Run) -> bool:
    """Whether nothing more will happen to the run."""
    return run.state in FINAL_STATES


class Runs:
    """The part of RunService that is about runs. Every method gives the reply as it came."""

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._stub = RunServiceStub(channel)
        self._caller = caller

    def start(
        self,
        agent: str = "",
        input: Any = None,
        *,
        input_json: str | None = None,
        files: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        title: str = "",
        agent_revision: int | None = None,
        rerun_of: str = "",
        session_id: str = "",
        session_policy: pb.SessionPolicy.ValueType = pb.SESSION_POLICY_UNSPECIFIED,
        budget: pb.Budget | None = None,
        request_id: str | None = None,
    ) -> pb.StartRunResponse:
        """Start a run of an agent, by id or name, or of what `rerun_of` ran.

        `input` is any value that JSON can hold (NaN and infinities: ValueError), `input_json` the
        same as text; give one. `files` maps the name the agent reads by to an artifact's id.
        The same `request_id` starts one run however often it is sent; without one a fresh one
        covers the repetitions of this call.
        """
        request = pb.StartRunRequest(
            request_id=request_id or new_request_id(),
            agent=agent,
            agent_revision=agent_revision,
            input_artifacts=files,
            labels=labels,
            title=title,
            rerun_of=rerun_of,
            session_id=session_id,
            session_policy=session_policy,
            budget=budget,
        )
        if input_json is not None:
            request.input_json = input_json
        elif input is not None:
            request.input_json = json_text(input)
        return self._caller.call(self._stub.StartRun, request)

    def get(self, run_id: str) -> pb.GetRunResponse:
        """One run in full."""
        return self._caller.call(self._stub.GetRun, pb.GetRunRequest(run_id=run_id))

    def list(
        self,
        filter: pb.RunFilter | None = None,
        *,
        page_size: int = 0,
        page_token: str = "",
        full: bool = False,
    ) -> pb.ListRunsResponse:
        """A page of runs, newest first."""
        view = pb.RUN_VIEW_FULL if full else pb.RUN_VIEW_BASIC
        request = pb.ListRunsRequest(
            filter=filter, page_size=page_size, page_token=page_token, view=view
        )
        return self._caller.call(self._stub.ListRuns, request)

    def each(self, filter: pb.RunFilter | None = None) -> Iterator[pb.Run]:
        """All runs that match, newest first, page by page as they are asked for."""
        page_token = ""
        while True:
            page = self.list(filter, page_size=200, page_token=page_token)
            yield from page.runs
            page_token = page.next_page_token
            if not page_token:
                return

    def update(
        self,
        run_id: str,
        *,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> pb.UpdateRunResponse:
        """Replace title, labels or both; what is None stays."""
        request = pb.UpdateRunRequest(
            run_id=run_id,
            title=title or "",
            labels=labels,
            request_id=request_id or new_request_id(),
        )
        if title is not None:
            request.update_mask.paths.append("title")
        if labels is not None:
            request.update_mask.paths.append("labels")
        return self._caller.call(self._stub.UpdateRun, request)

    def delete(self, run_id: str, *, request_id: str | None = None) -> pb.DeleteRunResponse:
        """Delete an ended root run with its tree, events and artifacts."""
        request = pb.DeleteRunRequest(run_id=run_id, request_id=request_id or new_request_id())
        return self._caller.call(self._stub.DeleteRun, request)

    def stop(
        self, run_id: str, reason: str = "", *, request_id: str | None = None
    ) -> pb.StopRunResponse:
        """Stop a run and its descendants; committed when this returns."""
        request = pb.StopRunRequest(
            run_id=run_id, reason=reason, request_id=request_id or new_request_id()
        )
        return self._caller.call(self._stub.StopRun, request)

    def stop_all(
        self, filter: pb.RunFilter, reason: str = "", *, request_id: str | None = None
    ) -> pb.StopRunsResponse:
        """Stop what matches, up to the server's limit a call; `more` says whether to go on."""
        request = pb.StopRunsRequest(
            filter=filter, reason=reason, request_id=request_id or new_request_id()
        )
        return self._caller.call(self._stub.StopRuns, request)

    def pause(self, run_id: str, *, request_id: str | None = None) -> pb.PauseRunResponse:
        """Hold a run and its descendants at their next boundary; `run.pause.in_effect` says whether
        it is held already."""
        request = pb.PauseRunRequest(run_id=run_id, request_id=request_id or new_request_id())
        return self._caller.call(self._stub.PauseRun, request)

    def resume(self, run_id: str, *, request_id: str | None = None) -> pb.ResumeRunResponse:
        """Let a held run and its descendants go on."""
        request = pb.ResumeRunRequest(run_id=run_id, request_id=request_id or new_request_id())
        return self._caller.call(self._stub.ResumeRun, request)

    def send(
        self,
        run_id: str,
        text: str = "",
        *,
        data: Any = None,
        data_json: str | None = None,
        request_id: str | None = None,
    ) -> pb.SendMessageResponse:
        """Say something to a run: a text, a value that JSON can hold, or the same as JSON text.

        Messages reach the agent once and in order, when it asks for them. ValueError unless exactly
        one of the three is given.
        """
        if bool(text) + (data is not None) + (data_json is not None) != 1:
            raise ValueError("give one of text, data and data_json")
        request = pb.SendMessageRequest(run_id=run_id, request_id=request_id or new_request_id())
        if text:
            request.text = text
        else:
            request.data_json = json_text(data) if data_json is None else data_json
        return self._caller.call(self._stub.SendMessage, request)

    def wait(
        self,
        run_id: str,
        *,
        until: Literal["finished", "attention"] = "finished",
        after: int = 0,
        timeout_seconds: float | None = None,
    ) -> pb.WaitRunResponse:
        """Wait until the run ended, or ended or asks for somebody ("attention").

        `timed_out` of the reply holds when `timeout_seconds` passed first; None waits for ever.
        """
        request = pb.WaitRunRequest(run_id=run_id, after_sequence=after)
        request.until = pb.WAIT_UNTIL_ATTENTION if until == "attention" else pb.WAIT_UNTIL_FINISHED
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _WAIT_SLICE_SECONDS if end is None else max(end - time.monotonic(), 0.0)
            part = min(left, _WAIT_SLICE_SECONDS)
            request.timeout.FromMilliseconds(int(part * 1000))
            reply = self._caller.call(
                self._stub.WaitRun, request, deadline_seconds=part + self._caller.deadline_seconds
            )
            if not reply.timed_out or (end is not None and time.monotonic() >= end):
                return reply

    def watch(
        self,
        run_id: str,
        after: int = 0,
        *,
        last_events: int | None = None,
        kinds: Sequence[pb.EventKind.ValueType] = (),
        except_kinds: Sequence[pb.EventKind.ValueType] = (),
        heartbeat_seconds: float = 10.0,
    ) -> RunWatch:
        """Iterate over the replies of WatchRun after a sequence, or from the newest so many events.

        Cuts are resumed unseen: see RunWatch.
        """
        return RunWatch(
            method=self._stub.WatchRun,
            caller=self._caller,
            run_id=run_id,
            position=after if last_events is None else None,
            last_events=last_events or 0,
            kinds=kinds,
            except_kinds=except_kinds,
            heartbeat_seconds=heartbeat_seconds,
        )

    def events(
        self, run_id: str, after: int = 0, *, page_size: int = 0, wait_seconds: float = 0.0
    ) -> pb.ListRunEventsResponse:
        """A page of events after a sequence; waits so long when there is none yet."""
        request = pb.ListRunEventsRequest(run_id=run_id, after_sequence=after, page_size=page_size)
        request.wait.FromMilliseconds(int(wait_seconds * 1000))
        return self._caller.call(
            self._stub.ListRunEvents,
            request,
            deadline_seconds=wait_seconds + self._caller.deadline_seconds,
        )
