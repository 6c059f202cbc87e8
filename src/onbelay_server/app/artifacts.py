"""Files: uploading them, listing those of a run, reading their bytes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from onbelay_server.app.uploads import Chunk, Uploads
from onbelay_server.app.visibility import controlled, seen, sees_file
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, NewEvent, Reads, Rows
from onbelay_server.domain.error import (
    FailedPrecondition,
    NotFound,
    OutOfRange,
)
from onbelay_server.domain.event import ArtifactSaved
from onbelay_server.domain.ids import make_id
from onbelay_server.domain.lifecycle import check_active
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.request import Request, RequestKey
from onbelay_server.ports.blobs import Blobs
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.store import ApprovalFilter, Place, Store

UPLOAD_KEPT_US = 24 * 3600 * 1_000_000
READ_CHUNK_BYTES = 256 * 1024
_METHOD = "PutArtifact"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upload is."""

    next_offset_bytes: int
    artifact: Artifact | None
    """Set once it is whole."""


@dataclass(frozen=True, slots=True)
class ArtifactPage:
    """A page of a run's artifacts, in the order in which they were saved."""

    artifacts: Sequence[Artifact]
    after: Place | None
    """Where the next page begins; None when nothing follows."""


class Artifacts:
    """Artifacts are seen by whoever sees their run; an upload by its owner and administrators."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        uploads: Uploads,
        clock: Clock,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._uploads = uploads
        self._clock = clock
        self._entropy = entropy

    async def put(self, caller: Principal, chunk: Chunk) -> Progress:
        """Take a chunk; the last one makes the artifact, durably. Repeating any chunk is harmless.

        Raises NotFound, PermissionDenied and FailedPrecondition (RUN_NOT_ACTIVE) for the run;
        FailedPrecondition UPLOAD_OFFSET_MISMATCH (metadata next_offset_bytes) for a gap,
        CONTENT_MISMATCH for bytes without the given SHA-256, UPLOAD_CLOSED for other bytes than
        those that were finished; ResourceExhausted (PAYLOAD_TOO_LARGE, QUOTA_EXCEEDED, STORE_FULL).
        """
        if chunk.run_id:
            check_active(controlled(await self._store.run(chunk.run_id), caller))
        key = RequestKey(caller.tenant, caller.id, _METHOD, chunk.upload_id)
        is_whole = chunk.offset_bytes == 0 and chunk.finish
        if not is_whole and not self._uploads.is_open(caller, chunk.upload_id):
            # Unknown here: finished earlier, or its beginning was lost with an earlier process.
            finished = await self._finished(key, chunk)
            if finished is not None:
                return await self._repeated(finished, chunk)
        async with self._uploads.taking(caller, chunk) as upload:
            if not chunk.finish:
                return Progress(upload.size_bytes, None)
            sha256 = await upload.finish(chunk.sha256)
            made = self._artifact(caller, chunk, sha256, upload.size_bytes)
        artifact_id = await self._commit(made, chunk, key, caller)
        if artifact_id == made.id:
            return Progress(made.size_bytes, made)
        earlier = await self._store.artifact(artifact_id)
        if earlier is None:
            raise _unknown()
        if earlier.sha256 != sha256:
            raise _closed()
        return Progress(earlier.size_bytes, earlier)

    async def list_artifacts(
        self, caller: Principal, run_id: str, *, after: Place | None, limit: int
    ) -> ArtifactPage:
        """A run's artifacts. Those without a name are results too large for the log: not listed."""
        seen(await self._store.run(run_id), caller)
        found: list[Artifact] = []
        while True:
            rows = await self._store.list_artifacts(run_id, after=after, limit=limit + 1)
            for row in rows[:limit]:
                if row.name and len(found) == limit:
                    return ArtifactPage(found, after)
                after = Place(row.create_us, row.id)
                if row.name:
                    found.append(row)
            if len(rows) <= limit:
                return ArtifactPage(found, None)

    async def open(
        self, caller: Principal, artifact_id: str, offset_bytes: int
    ) -> tuple[Artifact, AsyncGenerator[bytes, None]]:
        """What an artifact is, and its bytes from the offset on, in chunks.

        Raises NotFound for one the caller may not know of, OutOfRange (metadata size_bytes)."""
        artifact = await self._store.artifact(artifact_id)
        if artifact is None or not await self._sees(caller, artifact):
            raise _unknown()
        if offset_bytes > artifact.size_bytes:
            raise OutOfRange(
                "the offset is past the end of the artifact",
                reason="OFFSET_OUT_OF_RANGE",
                metadata={"size_bytes": str(artifact.size_bytes)},
            )
        return artifact, self._bytes(artifact, offset_bytes)

    async def _bytes(self, artifact: Artifact, offset_bytes: int) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._blobs.read(artifact.sha256, offset_bytes, READ_CHUNK_BYTES):
                yield chunk
                offset_bytes += len(chunk)
        except LookupError:
            offset_bytes = -1
        if offset_bytes != artifact.size_bytes:
            # Retention removed it while it was read.
            raise _unknown()

    async def _sees(self, caller: Principal, artifact: Artifact) -> bool:
        run = await self._store.run(artifact.run_id) if artifact.run_id is not None else None
        if sees_file(caller, artifact, run, self._clock.now_us()):
            return True
        if run is None or run.tenant != caller.tenant:
            return False
        # A listed approver sees the evidence of what they are asked, and nothing else of the run.
        which = ApprovalFilter(run_id=run.id, evidence_artifact_id=artifact.id)
        return bool(await self._store.list_approvals(caller.viewer, which, after=None, limit=1))

    async def _finished(self, key: RequestKey, chunk: Chunk) -> Artifact | None:
        def decide(rows: Rows, now_us: int) -> Change[str]:
            earlier = rows.request(key)
            if earlier is not None and earlier.body_sha256 != chunk.purpose_sha256:
                raise _closed()
            return Change(result=earlier.result_id if earlier else "")

        artifact_id = (await self._store.write(Reads(requests=[key]), decide)).result
        return await self._store.artifact(artifact_id) if artifact_id else None

    async def _repeated(self, artifact: Artifact, chunk: Chunk) -> Progress:
        """The answer to a chunk of an upload that is whole: the same bytes, or a refusal."""
        end = chunk.offset_bytes + len(chunk.content)
        if end > artifact.size_bytes or (chunk.finish and end != artifact.size_bytes):
            raise _closed()
        if chunk.finish and chunk.sha256 and chunk.sha256 != artifact.sha256:
            raise _closed()
        position = 0
        if chunk.content:
            stored = self._blobs.read(artifact.sha256, chunk.offset_bytes, len(chunk.content))
            async for piece in stored:
                wanted = chunk.content[position : position + len(piece)]
                if piece[: len(wanted)] != wanted:
                    raise _closed()
                position += len(piece)
                if position >= len(chunk.content):
                    break
        return Progress(artifact.size_bytes, artifact)

    def _artifact(self, caller: Principal, chunk: Chunk, sha256: str, size_bytes: int) -> Artifact:
        now_us = self._clock.now_us()
        return Artifact(
            id=make_id("art", now_us, self._entropy(10)),
            tenant=caller.tenant,
            owner=caller.id,
            run_id=chunk.run_id or None,
            name=chunk.name,
            media_type=chunk.media_type or "application/octet-stream",
            size_bytes=size_bytes,
            sha256=sha256,
            create_us=now_us,
            expire_us=None if chunk.run_id else now_us + UPLOAD_KEPT_US,
        )

    async def _commit(
        self, artifact: Artifact, chunk: Chunk, key: RequestKey, caller: Principal
    ) -> str:
        def decide(rows: Rows, now_us: int) -> Change[str]:
            earlier = rows.request(key)
            if earlier is not None:
                if earlier.body_sha256 != chunk.purpose_sha256:
                    raise _closed()
                return Change(result=earlier.result_id)
            request = Request(
                key=key,
                body_sha256=chunk.purpose_sha256,
                result_id=artifact.id,
                create_us=now_us,
            )
            events: list[NewEvent] = []
            if artifact.run_id is not None:
                run = controlled(rows.run(artifact.run_id), caller)
                check_active(run)
                events.append(NewEvent(run.id, _saved(artifact)))
            return Change(result=artifact.id, put=[artifact, request], events=events)

        reads = Reads(
            runs=[artifact.run_id] if artifact.run_id else [],
            artifacts=[artifact.id],
            requests=[key],
        )
        return (await self._store.write(reads, decide)).result


def _saved(artifact: Artifact) -> ArtifactSaved:
    return ArtifactSaved(
        artifact_id=artifact.id,
        name=artifact.name,
        media_type=artifact.media_type,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
    )


def _closed() -> FailedPrecondition:
    return FailedPrecondition("the upload was finished with other bytes", reason="UPLOAD_CLOSED")


def _unknown() -> NotFound:
    return NotFound("no such artifact", metadata={"resource": "artifact"})
