"""The frames between a copy of a run and the host that keeps its log.

A *copy* is one execution of an agent's code, from its top. Its *host* keeps the log: the service,
in this process or at the other end of a pipe, or the in-memory host of `onbelay_agent.testing`.
Both sides speak in ordered frames: the copy says what it asks for and what became of it, the host
says what has been recorded. Nothing the agent waits for is released before the host has said
`Recorded`.

The same frames travel as JSON lines over a child's pipe (`onbelay_agent.stdio`), one object a line
with the frame's snake_case name as its only key; they mirror the messages of BrokerService.
JSON that is hashed or stored (`*_json`) is text: its bytes are never re-encoded on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

PROTOCOL_VERSION = 1
MAX_INLINE_BYTES = 256 * 1024
"""A result larger than this travels as a blob named by its SHA-256."""
MAX_CHUNK_BYTES = 512 * 1024
"""Blobs cross a pipe in chunks of at most this many bytes before base64."""

CallKind = Literal[
    "STEP",
    "TOOL",
    "MODEL",
    "APPROVAL",
    "QUESTION",
    "CHILD",
    "OPERATION",
    "TIMER",
    "MESSAGES",
    "ARTIFACT_READ",
    "ARTIFACT_SAVE",
    "VERSION",
]


# ---- what both sides share ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a call failed. `type` is the class of the author's error: `Rejected`, `StepFailed` …"""

    type: str
    message: str
    data_json: str = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """Something for watchers. `place` is `branch:emit#ordinal`; a place is never written twice."""

    place: str
    kind: Literal["text", "progress", "report", "log"]
    text: str = ""
    """The text of `text`, the note of `progress`, the message of `log`, the name of `report`."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    done: float | None = None
    total: float | None = None
    data_json: str = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A call the agent asked for, recorded before anything of it happens."""

    id: str
    """`branch:kind:name#occurrence`, the same on every replay."""
    kind: CallKind
    name: str
    digest: str
    """Lower-case hex SHA-256 of what was asked; a replay that differs has diverged."""
    request_json: str
    """The call's own data, by kind:
    STEP {"once": bool}; TOOL {"tool", "arguments", "timeout_seconds"|null};
    APPROVAL {"title", "body", "evidence"}; QUESTION {"question", "schema"}; TIMER {"due_us"};
    ARTIFACT_READ {"name"}; ARTIFACT_SAVE {"name", "media_type", "sha256", "size_bytes"};
    CHILD {"agent", "input_json"} to start one, answered {"child_run_id"}, and {"child_run_id"} to
    await its end; OPERATION {"name", "schema"|null, "expires_seconds"|null} to open one, answered
    {"operation_id", "token"}, and {"operation_id"} to await its outcome; MESSAGES {"wait": bool},
    answered with a list of {"message_id", "sent_by", "text", "data"}; VERSION {"version": int},
    answered with that number in the commit that records it; MODEL: not yet."""
    cancelled: bool = False
    """Asked and cancelled again while the journal was replayed: recorded as both, never run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One entry of the journal, in log order."""

    type: Literal["started", "finished", "cancelled"]
    step_id: str
    time_us: int
    """When it was committed: the agent's `now()` once it is released."""
    kind: CallKind | None = None
    """started only."""
    digest: str = ""
    """started only."""
    stage: int | None = None
    """started: the stage it was asked at. finished: the last stage up to which every batch was
    answered, or None when somebody other than the copy recorded it (a decision, a timer)."""
    cancelled: bool = False
    """started only: recorded as already cancelled."""
    attempt: int = 1
    """started only: how often the call has been begun."""
    ok_json: str | None = None
    """finished only: the result; None when `failure` or `content_sha256` says it."""
    failure: Failure | None = None
    content_sha256: str = ""
    """finished only: the blob that holds the result's JSON (`ok_json` is None), or, for
    ARTIFACT_READ, the artifact's bytes (`ok_json` describes it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputArtifact:
    """A file given to the run when it was started."""

    name: str
    artifact_id: str
    media_type: str
    size_bytes: int
    sha256: str


# ---- from the copy to its host -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """First frame of a copy: what it is. The host answers with Start, journal records and Go."""

    protocol: int
    python: str
    """`3.12`: journals do not replay across every minor version."""
    fingerprint: str
    """SHA-256 of the agent's source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """A call whose start is recorded and whose end is not, asked again by this copy."""

    step_id: str
    attempt: int
    once: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """All that was asked in one stage, recorded as one batch with the emits before it.

    Answered by Begun once committed; a STEP's function starts only then. A host may hold it back
    while it takes other frames, and in the end drop it: a later copy asks again. It then records
    the emits at once, as those of later frames follow them. A copy cancels no call of a batch that
    is not answered, unless its code has ended."""

    stage: int
    emits: tuple[Emit, ...] = ()
    intents: tuple[Intent, ...] = ()
    reopened: tuple[Reopened, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The end of a STEP that ran beside the agent. Answered by Recorded once committed."""

    step_id: str
    stage: int
    emits: tuple[Emit, ...] = ()
    ok_json: str | None = None
    failure: Failure | None = None
    content_sha256: str = ""
    duration_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Begun calls the agent no longer wants; the host ends their work and records it."""

    step_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """Emits that had no batch to travel with."""

    emits: tuple[Emit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """Nothing is left to do here but wait for what others record. The host may answer Suspend."""

    stage: int
    waiting: tuple[str, ...]
    """The ids of the open calls, in the order they were asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The agent's loop turned: sent at most once a second while it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Last frame of a copy.

    returned: `output_json`. raised: `error_type`, `message`. diverged: `message` names the step,
    what was recorded and what was found. stuck: waits on nothing that can ever happen.
    stopped, suspended: the copy was told to end and did."""

    outcome: Literal["returned", "raised", "diverged", "stuck", "stopped", "suspended"]
    emits: tuple[Emit, ...] = ()
    output_json: str | None = None
    content_sha256: str = ""
    """The blob that holds the output's JSON when it is too large to travel inline."""
    error_type: str = ""
    message: str = ""
    step_id: str = ""
    """diverged: the call that does not fit."""
    recorded: str = ""
    """diverged: what the journal has there."""
    found: str = ""
    """diverged: what the code asked for instead."""
    abandoned: tuple[str, ...] = ()
    """Threads that could not be stopped, by the step they were started for."""


ToHost = Ready | Begin | Finish | Cancel | Emitted | Parked | Pulse | Ended


# ---- from the host to its copy -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to run and everything fixed when the run started."""

    run_id: str
    agent: str
    attempt: int
    start_us: int
    """When the run was started: `now()` until the first record is released."""
    input_json: str
    seed: str
    """`random` and `uuid` derive from it."""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    session_id: str = ""
    input_artifacts: tuple[InputArtifact, ...] = ()
    emitted: Mapping[str, int] = field(default_factory=dict)
    """The highest recorded emit ordinal of each branch; those are not written again."""
    journal: tuple[Record, ...] = ()
    """Every record of earlier copies. Over a pipe they follow Start one Recorded a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """The journal is complete: run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The batch of `stage` is committed. `held` lists the calls of it the copy must not run itself
    (a person decides what became of them; their end will be Recorded)."""

    stage: int
    held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A result is committed; records arrive in log order."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend:
    """The run waits without this copy: unwind and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The run is to end. Calls refuse at once; calls in flight may finish within the grace."""

    grace_seconds: float
    reason: str = ""


FromHost = Start | Go | Begun | Recorded | Suspend | Stop


class Host(Protocol):
    """What a copy needs of whoever keeps its log. Used from the copy's own host loop only."""

    def send(self, frame: ToHost) -> None:
        """Hand over a frame. Never blocks; frames are taken in order. Nothing follows Ended."""
        ...

    async def put_blob(self, content: bytes) -> str:
        """Keep bytes by their SHA-256, which is returned. Repeating it is harmless."""
        ...

    async def get_blob(self, sha256: str) -> bytes:
        """Bytes kept earlier or given to the run as an input artifact.

        Raises LookupError when the host does not hold them."""
        ...
