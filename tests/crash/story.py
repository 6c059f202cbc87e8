"""A run's log as the story it tells, without what depends on crashes: two can be compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from onbelay.v1 import approval_pb2

_SKIPPED = frozenset({"state_changed", "step_restarted", "tool_call_started", "run_started"})


_ID = re.compile(r"\b(art|run|op|msg|apr)_[0-9a-z]{26}\b|obl_op_[\w-]+")


def starts(log: Sequence[Any]) -> list[str]:
    """What was asked, in order."""
    return [event.step_id for event in log if event.HasField("step_started")]


def story(log: Sequence[Any]) -> list[tuple[str, str, str]]:
    """What was said and how everything ended, sorted: branches may overtake each other."""
    doubts = {
        event.approval_requested.approval_id
        for event in log
        if event.HasField("approval_requested")
        and event.approval_requested.kind == approval_pb2.APPROVAL_KIND_UNKNOWN_OUTCOME
    }
    return sorted(one for event in log if (one := _told(event, doubts)) is not None)


def _told(event: Any, doubts: set[str]) -> tuple[str, str, str] | None:
    kind = event.WhichOneof("payload")
    payload = getattr(event, kind)
    if kind in _SKIPPED:
        return None
    match kind:
        case "child_run_finished" | "operation_completed" | "operation_expired" if (
            not event.step_id
        ):
            return None  # before anybody waited for it: the wait, when asked, ends by itself
        case "step_finished" | "tool_call_finished" | "child_run_finished" | "operation_completed":
            return ("end", event.step_id, _outcome(payload))
        case "approval_requested" | "approval_decided" if payload.approval_id in doubts:
            if kind == "approval_decided" and payload.answer_json:
                return ("end", event.step_id, payload.answer_json)
            return None
        case "approval_decided":
            return (kind, event.step_id, f"{payload.decision} {payload.answer_json}")
        case "step_started":
            return (kind, event.step_id, payload.name)
        case "text_delta":
            return (kind, event.step_id, payload.text)
        case "progress_reported":
            return (kind, event.step_id, f"{payload.done} {payload.note}")
        case "message_received":
            return (kind, event.step_id, payload.text)
        case "run_finished":
            return (kind, "", f"{payload.state} {payload.output_json}")
    return (kind, event.step_id, "")


def _outcome(payload: Any) -> str:
    if payload.HasField("error"):
        return f"error {getattr(payload.error, 'type', '') or payload.error.reason}"
    result = getattr(payload, "result_json", "") or getattr(payload, "output_json", "")
    return _ID.sub("an id", result)
