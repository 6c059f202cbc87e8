"""Everything that must be known of a run before its agent can be run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from onbelay_agent.protocol import InputArtifact, Start
from onbelay_server.app.engine.asking import Asking
from onbelay_server.app.engine.effects import Effects
from onbelay_server.app.engine.files import Files
from onbelay_server.app.engine.intents import Intents
from onbelay_server.app.engine.journal import Journal
from onbelay_server.app.engine.outside import Outside
from onbelay_server.app.engine.relatives import Relatives
from onbelay_server.app.governance.broker import Broker
from onbelay_server.app.operation_token import OperationTokens
from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.event import EventPayload, StateChanged, UnknownPayload
from onbelay_server.domain.run import Run
from onbelay_server.domain.state import RunState
from onbelay_server.ports.blobs import Blobs
from onbelay_server.ports.event_codec import EventCodec
from onbelay_server.ports.harness import Hear, Launch
from onbelay_server.ports.store import Place, Store

_FRESH_EVENTS = 2
"""RunStarted and the claim: the log of a run whose agent was never run says nothing to it."""
_PAGE_EVENTS = 2_000
_PAGE_BYTES = 4 * 2**20
_PAGE_ARTIFACTS = 500


@dataclass(slots=True)
class CaseFile:
    """A claimed run with its agent, its files and its journal."""

    run: Run
    revision: AgentRevision
    journal: Journal
    position: int
    """The last sequence the journal has read."""
    blobs: Blobs
    store: Store
    log_bytes: int = 0
    """How large the log is up to there."""
    is_stopping: bool = False
    """A stop was committed since the claim: the agent is not run again."""
    files: dict[str, Artifact] = field(default_factory=dict)
    """What the agent may read by name: its input, and what it saved."""
    kept: dict[str, int] = field(default_factory=dict)
    """The size of every blob put by this copy, by its SHA-256."""
    _readable: set[str] = field(default_factory=set)

    @classmethod
    async def load(
        cls,
        run: Run,
        store: Store,
        codec: EventCodec,
        blobs: Blobs,
        tokens: OperationTokens,
    ) -> CaseFile:
        """Read it all. Raises LookupError when the agent's revision is gone."""
        revision = await store.revision(run.agent_id, run.agent_revision)
        if revision is None:
            raise LookupError("the agent's revision")
        journal = Journal(lambda operation_id: tokens.token(operation_id, run.tenant))
        case = cls(run, revision, journal, 0, blobs, store)
        for name, artifact_id in run.input_artifacts.items():
            artifact = await store.artifact(artifact_id)
            if artifact is not None:
                case.files[name] = artifact
                case._readable.add(artifact.sha256)
        if run.epoch == 1 and run.last_sequence <= _FRESH_EVENTS:
            case.position = run.last_sequence
            return case
        await case._read_saved(store)
        await case._read_log(store, codec)
        return case

    async def _read_saved(self, store: Store) -> None:
        after: Place | None = None
        while True:
            page = await store.list_artifacts(self.run.id, after=after, limit=_PAGE_ARTIFACTS)
            for artifact in page:
                self.keep(artifact)
            if len(page) < _PAGE_ARTIFACTS:
                return
            after = Place(page[-1].create_us, page[-1].id)

    async def _read_log(self, store: Store, codec: EventCodec) -> None:
        while True:
            page = await store.events(
                self.run.id, after=self.position, limit=_PAGE_EVENTS, max_bytes=_PAGE_BYTES
            )
            if not page:
                return
            for stored in page:
                self.log_bytes += len(stored.body)
                event = codec.decode(stored.body)
                match event.payload:
                    case StateChanged(to_state=state):
                        self.is_stopping = state is RunState.STOPPING
                if event.sequence > self.run.replay_after:
                    await self.learn(event.payload)
                    self.journal.read(event)
            self.position = page[-1].sequence

    async def learn(self, payload: EventPayload | UnknownPayload) -> None:
        """Where the content is that an event names and the journal does not know yet."""
        artifact_id = self.journal.unknown_content(payload)
        if artifact_id:
            artifact = await self.store.artifact(artifact_id)
            if artifact is not None:
                self._readable.add(artifact.sha256)
                self.journal.keep_content(artifact.id, artifact.sha256)

    @property
    def writer(self) -> Files:
        """What records the files it reads and saves."""
        return Files(self.run, self.files, self.kept)

    def intents(self, broker: Broker, store: Store, tokens: OperationTokens) -> Intents:
        """What records its agent's calls."""
        run, revision = self.run, self.revision
        return Intents(
            asking=Asking(run, revision),
            effects=Effects(run, revision, broker),
            files=self.writer,
            outside=Outside(run, revision, tokens),
            relatives=Relatives(run, revision, store),
        )

    def keep(self, artifact: Artifact) -> None:
        """The run saved a file, or a value too large for the log."""
        self._readable.add(artifact.sha256)
        if artifact.name:
            self.files[artifact.name] = artifact
        else:
            self.journal.keep_content(artifact.id, artifact.sha256)

    def launch(self, begun: Callable[[], None], hear: Hear) -> Launch:
        """What a harness is to execute."""
        return Launch(
            revision=self.revision,
            start=self.start,
            begun=begun,
            hear=hear,
            put_blob=self.put_blob,
            get_blob=self.get_blob,
        )

    @property
    def start(self) -> Start:
        """What the copy is told first."""
        inputs = (
            InputArtifact(
                name=name,
                artifact_id=artifact_id,
                media_type=self.files[name].media_type,
                size_bytes=self.files[name].size_bytes,
                sha256=self.files[name].sha256,
            )
            for name, artifact_id in self.run.input_artifacts.items()
            if name in self.files
        )
        return Start(
            run_id=self.run.id,
            agent=self.run.agent_name,
            attempt=self.run.attempt,
            start_us=self.run.create_us,
            input_json=self.run.input_json,
            seed=hashlib.sha256(self.run.id.encode()).hexdigest(),
            env=dict(self.revision.env),
            labels=dict(self.run.labels),
            session_id=self.run.session_id,
            input_artifacts=tuple(inputs),
            emitted=dict(self.journal.emitted),
            journal=self.journal.records,
        )

    async def put_blob(self, content: bytes) -> str:
        """Keep bytes for the run's agent, which may read them back."""
        sha256 = await self.blobs.put(content)
        self._readable.add(sha256)
        self.kept[sha256] = len(content)
        return sha256

    async def get_blob(self, sha256: str) -> bytes:
        """Bytes the run may read: its input, what it saved, its own large values."""
        if sha256 not in self._readable:
            raise LookupError(sha256)
        return await self.blobs.get(sha256)
