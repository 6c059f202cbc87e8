"""RunService: the files of runs, and files for runs to come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from onbelay.v1 import artifact_request_pb2 as pb
from onbelay_server.app.artifacts import Artifacts
from onbelay_server.transport.grpc.artifact_wire import chunk_of, to_artifact, to_progress
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.page_token import PageTokens, page_size


class ArtifactCalls:
    """Answers PutArtifact, ListArtifacts and GetArtifact."""

    def __init__(self, artifacts: Artifacts, tokens: PageTokens) -> None:
        self._artifacts = artifacts
        self._tokens = tokens

    async def put_artifact(
        self, request: pb.PutArtifactRequest, call: Call
    ) -> pb.PutArtifactResponse:
        return to_progress(await self._artifacts.put(call.caller, chunk_of(request)))

    async def list_artifacts(
        self, request: pb.ListArtifactsRequest, call: Call
    ) -> pb.ListArtifactsResponse:
        page = await self._artifacts.list_artifacts(
            call.caller,
            request.run_id,
            after=self._tokens.read(request, call.caller),
            limit=page_size(request.page_size),
        )
        response = pb.ListArtifactsResponse(
            artifacts=[to_artifact(artifact) for artifact in page.artifacts]
        )
        if page.after is not None:
            response.next_page_token = self._tokens.issue(request, call.caller, page.after)
        return response

    async def get_artifact(
        self, request: pb.GetArtifactRequest, call: Call
    ) -> AsyncIterator[pb.GetArtifactResponse]:
        artifact, chunks = await self._artifacts.open(
            call.caller, request.artifact_id, request.offset_bytes
        )
        yield pb.GetArtifactResponse(artifact=to_artifact(artifact))
        async with aclosing(chunks) as pieces:
            async for piece in pieces:
                yield pb.GetArtifactResponse(content=piece)
