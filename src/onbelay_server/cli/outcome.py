"""How a command ends: its exit code and, when it failed, one line on stderr."""

from __future__ import annotations

from enum import IntEnum

from onbelay_client import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OnbelayError,
    Unavailable,
)
from onbelay_client import contract as pb
from onbelay_client.channel import is_loopback


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


def waits_for_person(run: pb.Run) -> bool:
    """Whether only somebody outside lets it go on: a run that takes messages may also wait for a
    timer, a child or an operation."""
    if run.state != pb.RUN_STATE_WAITING_FOR_INPUT:
        return run.state in NEEDS_PERSON
    kinds = {wait.WhichOneof("subject") for wait in run.waits}
    return "approval_id" in kinds or kinds <= {"message"}


def waits_for_message(run: pb.Run) -> bool:
    """Whether a message would let it go on."""
    return any(wait.WhichOneof("subject") == "message" for wait in run.waits)


def code_of_error(error: OnbelayError) -> ExitCode:
    """The exit code for a call that failed."""
    if isinstance(error, Unavailable):
        return ExitCode.UNAVAILABLE
    if isinstance(error, DeadlineExceeded):
        return ExitCode.TIMED_OUT
    if isinstance(error, InvalidArgument):
        return ExitCode.USAGE
    return ExitCode.FAILED


def line_of_error(error: OnbelayError, *, server: str = "", subject: str = "") -> str:
    """What failed and why, in one line; `server` and `subject` are whom and what was asked for."""
    text = " ".join(error.message.split())
    if isinstance(error, Unavailable) and not error.reason:
        return _unreachable(text, server)
    if isinstance(error, NotFound) and subject and subject not in text:
        text = f"{text}: {subject}"
    named = [f"{path}: {what}" for path, what in error.fields.items() if path not in text]
    if named:
        text = f"{text} [{'; '.join(named)}]"
    shown = {key: value for key, value in error.metadata.items() if value and value not in text}
    details = "".join(f" {key}={value}" for key, value in sorted(shown.items()))
    return f"{text} ({error.reason}{details})" if error.reason else text


def line_of_os_error(error: OSError) -> str:
    """What could not be read or written and why, without the number of the error."""
    if not error.strerror or error.filename is None:
        return str(error)
    return f"cannot use {error.filename}: {error.strerror.lower()}"


def _unreachable(text: str, server: str) -> str:
    if "Failed parsing HTTP/2" in text:
        return f"{server or 'what answers there'} is no gRPC server: is it the HTTP port?"
    # gRPC's own words name every address it tried; the end of them says why.
    why = text.rpartition(": ")[2]
    if not server:
        return f"the server cannot be reached: {why}"
    host = server.rpartition("://")[2].rpartition(":")[0]
    hint = "; start one with `onbelay serve`" if is_loopback(host) else ""
    return f"the server at {server} cannot be reached: {why}{hint}"
