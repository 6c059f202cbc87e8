"""Artifacts over the wire."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from onbelay.v1 import artifact_request_pb2 as pb
from tests.grpc.edge_server import Refused, bearer
from tests.grpc.resource_server import Desk, desk

Code = grpc.StatusCode


@pytest.fixture
async def d() -> AsyncIterator[Desk]:
    async with desk() as found:
        found.house.uploads._max_bytes = 3_000_000  # A house is small by default.
        yield found


def chunk(content: bytes = b"", **more: Any) -> pb.PutArtifactRequest:
    usual: dict[str, Any] = {"upload_id": "up", "name": "in.csv", "content": content}
    return pb.PutArtifactRequest(**(usual | more))


async def read(d: Desk, artifact_id: str, offset: int = 0, who: str = "ada") -> list[Any]:
    request = pb.GetArtifactRequest(artifact_id=artifact_id, offset_bytes=offset)
    return [reply async for reply in d.runs.GetArtifact(request, metadata=bearer(who), timeout=10)]


async def unreadable(d: Desk, artifact_id: str, offset: int = 0, who: str = "ada") -> Refused:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read(d, artifact_id, offset, who)
    return Refused.of(refused.value)


async def test_a_large_file_goes_up_in_chunks_and_comes_back(d: Desk) -> None:
    content = bytes(range(256)) * 8_000
    digest = hashlib.sha256(content).hexdigest()
    offset = 0
    while True:
        piece = content[offset : offset + 1_000_000]
        last = offset + len(piece) == len(content)
        request = chunk(piece, offset_bytes=offset, finish=last, sha256=digest if last else "")
        reply = await d.call(d.runs.PutArtifact, request)
        again = await d.call(d.runs.PutArtifact, request)
        assert again == reply
        offset = reply.next_offset_bytes
        if last:
            break
        assert not reply.HasField("artifact")
    made = reply.artifact
    assert (made.size_bytes, made.sha256, made.run_id) == (len(content), digest, "")
    assert made.media_type == "application/octet-stream"
    assert made.expire_time.seconds - made.create_time.seconds == 86_400
    replies = await read(d, made.id)
    assert replies[0].artifact == made
    assert not replies[0].content
    assert all(0 < len(one.content) <= 256 * 1024 for one in replies[1:])
    assert b"".join(one.content for one in replies) == content
    tail = await read(d, made.id, len(content) - 10)
    assert b"".join(one.content for one in tail) == content[-10:]
    assert len(await read(d, made.id, len(content))) == 1
    past = await unreadable(d, made.id, len(content) + 1)
    assert (past.code, past.reason) == (Code.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE")
    for who in ("ben", "rival"):
        assert (await unreadable(d, made.id, 0, who)).reason == "NOT_FOUND"


async def test_an_empty_file_is_a_file(d: Desk) -> None:
    reply = await d.call(d.runs.PutArtifact, chunk(finish=True))
    assert reply.artifact.size_bytes == 0
    assert len(await read(d, reply.artifact.id)) == 1


@pytest.mark.parametrize(
    ("more", "code", "reason", "fields"),
    [
        ({"upload_id": ""}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["upload_id"]),
        ({"name": ""}, Code.INVALID_ARGUMENT, "INVALID_FIELD", None),
        ({"name": "/etc/passwd"}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["name"]),
        ({"name": "a/../b"}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["name"]),
        ({"name": "a\x1bb"}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["name"]),
        ({"name": "x" * 201}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["name"]),
        ({"media_type": "text"}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["media_type"]),
        ({"sha256": "00"}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["sha256"]),
        ({"content": b"x" * 1_048_577}, Code.INVALID_ARGUMENT, "INVALID_FIELD", ["content"]),
        ({"run_id": "run_9"}, Code.NOT_FOUND, "NOT_FOUND", []),
        ({"offset_bytes": 7}, Code.FAILED_PRECONDITION, "UPLOAD_OFFSET_MISMATCH", []),
        ({"offset_bytes": 2**63}, Code.FAILED_PRECONDITION, "UPLOAD_OFFSET_MISMATCH", []),
        (
            {"finish": True, "sha256": "0" * 64},
            Code.FAILED_PRECONDITION,
            "CONTENT_MISMATCH",
            [],
        ),
    ],
)
async def test_hostile_uploads(
    d: Desk, more: dict[str, Any], code: Code, reason: str, fields: list[str] | None
) -> None:
    refused = await d.refused(d.runs.PutArtifact, chunk(**{"content": b"x", **more}))
    assert (refused.code, refused.reason) == (code, reason)
    if fields is not None:
        assert refused.fields == fields


async def test_past_the_size_limit(d: Desk) -> None:
    for offset in (0, 1_000_000, 2_000_000):
        await d.call(d.runs.PutArtifact, chunk(b"x" * 1_000_000, offset_bytes=offset))
    refused = await d.refused(d.runs.PutArtifact, chunk(b"x", offset_bytes=3_000_000))
    assert (refused.code, refused.reason) == (Code.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE")
    assert refused.metadata == {"limit_bytes": "3000000"}


async def test_files_of_a_run_are_listed_in_order(d: Desk) -> None:
    await d.house.run()
    for number in range(5):
        request = chunk(upload_id=f"u{number}", name=f"f{number}", run_id="run_1", finish=True)
        await d.call(d.runs.PutArtifact, request)
    names: list[str] = []
    token = ""
    while True:
        listing = pb.ListArtifactsRequest(run_id="run_1", page_size=2, page_token=token)
        page = await d.call(d.runs.ListArtifacts, listing)
        names += [one.name for one in page.artifacts]
        token = page.next_page_token
        if not token:
            break
    assert names == ["f0", "f1", "f2", "f3", "f4"]
    for run_id, who in (("run_1", "ben"), ("run_1", "rival"), ("run_9", "ada")):
        listing = pb.ListArtifactsRequest(run_id=run_id)
        assert (await d.refused(d.runs.ListArtifacts, listing, who)).code is Code.NOT_FOUND
