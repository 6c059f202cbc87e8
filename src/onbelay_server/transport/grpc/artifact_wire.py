"""Artifacts between the wire and the domain."""

from __future__ import annotations

from onbelay.v1 import artifact_pb2
from onbelay.v1 import artifact_request_pb2 as pb
from onbelay_server.app.artifacts import Progress
from onbelay_server.app.uploads import Chunk
from onbelay_server.domain.artifact import Artifact
from onbelay_server.transport.grpc.wire import to_timestamp


def to_artifact(artifact: Artifact) -> artifact_pb2.Artifact:
    """A file's description, without its bytes."""
    message = artifact_pb2.Artifact(
        id=artifact.id,
        run_id=artifact.run_id or "",
        name=artifact.name,
        media_type=artifact.media_type,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        create_time=to_timestamp(artifact.create_us),
        step_id=artifact.step_id,
    )
    if artifact.expire_us is not None:
        message.expire_time.CopyFrom(to_timestamp(artifact.expire_us))
    return message


def to_progress(progress: Progress) -> pb.PutArtifactResponse:
    """How far an upload is, with the artifact once it is whole."""
    response = pb.PutArtifactResponse(next_offset_bytes=progress.next_offset_bytes)
    if progress.artifact is not None:
        response.artifact.CopyFrom(to_artifact(progress.artifact))
    return response


def chunk_of(request: pb.PutArtifactRequest) -> Chunk:
    """The piece of an upload that a request carries."""
    return Chunk(
        upload_id=request.upload_id,
        run_id=request.run_id,
        name=request.name,
        media_type=request.media_type,
        offset_bytes=request.offset_bytes,
        content=request.content,
        finish=request.finish,
        sha256=request.sha256,
    )
