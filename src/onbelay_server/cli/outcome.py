"""How a command ends: its exit code and, when it failed, one line on stderr."""

from __future__ import annotations

from enum import IntEnum

from onbelay_client import (
    DeadlineExceeded,
    InvalidArgument,
    OnbelayError,
    Unavailable,
)
from onbelay_client import contract as pb


class ExitCode(IntEnum):
    """What scripts can rely on."""

    SUCCEEDED = 0
    FAILED = 1
    USAGE = 2
    NEEDS_PERSON = 3
    STOPPED = 4
    UNAVAILABLE = 5
    TIMED_OUT = 6


class CommandFailed(Exception):
    """Ends the command with one line and an exit code."""

    def __init__(self, text: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def code_of_run(run: pb.Run) -> ExitCode:
    """The exit code for where a run stands; NEEDS_PERSON for one that waits for somebody."""
    if run.state == pb.RUN_STATE_SUCCEEDED:
        return ExitCode.SUCCEEDED
    if run.state == pb.RUN_STATE_STOPPED:
        return ExitCode.STOPPED
    if run.state == pb.RUN_STATE_FAILED:
        return ExitCode.FAILED
    if run.state in NEEDS_PERSON:
        return ExitCode.NEEDS_PERSON
    return ExitCode.TIMED_OUT


NEEDS_PERSON = frozenset(
    {
        pb.RUN_STATE_WAITING_FOR_APPROVAL,
        pb.RUN_STATE_WAITING_FOR_INPUT,
        pb.RUN_STATE_REVIEWING,
        pb.RUN_STATE_PAUSED,
    }
)
"""States that only somebody outside can end."""


def code_of_error(error: OnbelayError) -> ExitCode:
    """The exit code for a call that failed."""
    if isinstance(error, Unavailable):
        return ExitCode.UNAVAILABLE
    if isinstance(error, DeadlineExceeded):
        return ExitCode.TIMED_OUT
    if isinstance(error, InvalidArgument):
        return ExitCode.USAGE
    return ExitCode.FAILED


def line_of_error(error: OnbelayError) -> str:
    """What failed and why, in one line."""
    text = " ".join(error.message.split())
    if isinstance(error, Unavailable) and not error.reason:
        # gRPC's own words name every address it tried; the end of them says why.
        return f"the server cannot be reached: {text.rpartition(': ')[2]}"
    named = [f"{path}: {what}" for path, what in error.fields.items() if path not in text]
    if named:
        text = f"{text} [{'; '.join(named)}]"
    shown = {key: value for key, value in error.metadata.items() if value and value not in text}
    details = "".join(f" {key}={value}" for key, value in sorted(shown.items()))
    return f"{text} ({error.reason}{details})" if error.reason else text
