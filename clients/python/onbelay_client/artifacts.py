"""Artifacts: files that runs are given and make."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import grpc

from onbelay.v1.run_service_pb2_grpc import RunServiceStub
from onbelay_client import contract as pb
from onbelay_client.calling import Caller, new_request_id
from onbelay_client.errors import (
    ContentMismatch,
    FailedPrecondition,
    OnbelayError,
    Unavailable,
    error_of,
)

CHUNK_BYTES = 1024 * 1024


class Artifacts:
    """The part of RunService that is about artifacts."""

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._stub = RunServiceStub(channel)
        self._caller = caller

    def put(
        self,
        source: Path | bytes,
        name: str = "",
        *,
        run_id: str = "",
        media_type: str = "",
        upload_id: str | None = None,
    ) -> pb.PutArtifactResponse:
        """Upload a file or bytes, chunk by chunk, checked by SHA-256 at the end.

        Without `run_id` it is an upload that a later StartRun takes within 24 hours. `name` is
        the file's own by default (bytes: required), the media type is guessed from it. A chunk
        that was cut is sent again; a server that lost its part of the upload gets it from where
        it says. Raises OSError when the file cannot be read.
        """
        if isinstance(source, Path):
            name = name or source.name
            with source.open("rb") as file:
                return self._upload(file, name, run_id, media_type, upload_id)
        if not name:
            raise ValueError("bytes need a name")
        return self._upload(io.BytesIO(source), name, run_id, media_type, upload_id)

    def list(
        self, run_id: str, *, page_size: int = 0, page_token: str = ""
    ) -> pb.ListArtifactsResponse:
        """A page of a run's artifacts, in the order in which they were saved."""
        request = pb.ListArtifactsRequest(run_id=run_id, page_size=page_size, page_token=page_token)
        return self._caller.call(self._stub.ListArtifacts, request)

    def each(self, run_id: str) -> Iterator[pb.Artifact]:
        """All artifacts of a run."""
        page_token = ""
        while True:
            page = self.list(run_id, page_size=200, page_token=page_token)
            yield from page.artifacts
            page_token = page.next_page_token
            if not page_token:
                return

    def read(self, artifact_id: str) -> bytes:
        """An artifact's bytes in memory, checked."""
        target = io.BytesIO()
        self._download(artifact_id, target)
        return target.getvalue()

    def download(self, artifact_id: str, path: Path) -> pb.Artifact:
        """An artifact as a file, checked; `path` appears whole or not at all."""
        part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        try:
            with part.open("wb") as file:
                artifact = self._download(artifact_id, file)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return artifact

    def _upload(
        self, file: BinaryIO, name: str, run_id: str, media_type: str, upload_id: str | None
    ) -> pb.PutArtifactResponse:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        sha256 = digest.hexdigest()
        upload_id = upload_id or new_request_id()
        offset_bytes = 0
        was_sent_back = False
        while True:
            file.seek(offset_bytes)
            content = file.read(CHUNK_BYTES)
            request = pb.PutArtifactRequest(
                upload_id=upload_id,
                run_id=run_id,
                name=name,
                media_type=media_type or mimetypes.guess_type(name)[0] or "",
                offset_bytes=offset_bytes,
                content=content,
                finish=offset_bytes + len(content) >= size_bytes,
                sha256=sha256,
            )
            try:
                reply = self._caller.call(self._stub.PutArtifact, request)
            except FailedPrecondition as error:
                where = error.metadata.get("next_offset_bytes", "")
                if error.reason != "UPLOAD_OFFSET_MISMATCH" or not where.isdigit() or was_sent_back:
                    raise
                # The server was started anew in between, or a repeated chunk had arrived.
                was_sent_back, offset_bytes = True, int(where)
                continue
            if request.finish:
                return reply
            was_sent_back = False
            offset_bytes += len(content)

    def _download(self, artifact_id: str, target: BinaryIO) -> pb.Artifact:
        """Write an artifact to `target`, going on where a stream was cut."""
        digest = hashlib.sha256()
        artifact: pb.Artifact | None = None
        offset_bytes = 0
        attempt = 0
        heard = self._caller.monotonic()
        while True:
            stream = self._caller.stream(
                self._stub.GetArtifact,
                pb.GetArtifactRequest(artifact_id=artifact_id, offset_bytes=offset_bytes),
            )
            error: OnbelayError = Unavailable("the stream was cut")
            try:
                for reply in stream:
                    attempt, heard = 0, self._caller.monotonic()
                    if reply.HasField("artifact"):
                        artifact = reply.artifact
                    target.write(reply.content)
                    digest.update(reply.content)
                    offset_bytes += len(reply.content)
                if artifact is not None and offset_bytes >= artifact.size_bytes:
                    break
            except grpc.RpcError as raised:
                error = error_of(raised)
            finally:
                stream.cancel()
            pause = self._caller.pause_before(attempt, error)
            spent = self._caller.monotonic() - heard
            if pause is None or spent + pause > self._caller.patience_seconds:
                raise error
            self._caller.sleep(pause)
            attempt += 1
        if offset_bytes != artifact.size_bytes or digest.hexdigest() != artifact.sha256:
            raise ContentMismatch(f"artifact {artifact_id} arrived damaged")
        return artifact
