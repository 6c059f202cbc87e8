"""Uploading, listing and reading files."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from onbelay_server.adapters.codec import ProtoEventCodec
from onbelay_server.app.artifacts import Progress
from onbelay_server.app.uploads import IDLE_SECONDS, Chunk
from onbelay_server.domain.artifact import Artifact
from onbelay_server.domain.change import Change, Reads
from onbelay_server.domain.error import (
    DomainError,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
)
from onbelay_server.domain.event import ArtifactSaved
from onbelay_server.domain.principal import Principal
from onbelay_server.domain.state import RunState
from tests.resources import ADA, ADMIN, BEN, RIVAL, House, person


@pytest.fixture
def house() -> House:
    return House()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def chunk(content: bytes = b"", **more: Any) -> Chunk:
    usual: dict[str, Any] = {
        "upload_id": "up",
        "run_id": "",
        "name": "in.csv",
        "media_type": "text/csv",
        "offset_bytes": 0,
        "finish": False,
        "sha256": "",
    }
    return Chunk(content=content, **(usual | more))


async def put(house: House, content: bytes = b"", caller: Principal = ADA, **more: Any) -> Progress:
    return await house.artifacts.put(caller, chunk(content, **more))


async def refusal(house: House, content: bytes = b"", **more: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        await put(house, content, **more)
    return refused.value


async def content_of(house: House, artifact: Artifact, offset: int = 0) -> bytes:
    _, pieces = await house.artifacts.open(ADA, artifact.id, offset)
    return b"".join([piece async for piece in pieces])


async def test_a_small_file_goes_in_one_call(house: House) -> None:
    done = await put(house, b"a,b\n", finish=True, sha256=digest(b"a,b\n"))
    made = done.artifact
    assert made is not None
    assert (made.size_bytes, made.sha256, made.run_id) == (4, digest(b"a,b\n"), None)
    assert made.expire_us is not None
    assert made.expire_us - made.create_us == 24 * 3600 * 1_000_000
    assert await content_of(house, made) == b"a,b\n"
    assert await content_of(house, made, 4) == b""
    with pytest.raises(OutOfRange) as refused:
        await house.artifacts.open(ADA, made.id, 5)
    assert refused.value.metadata == {"size_bytes": "4"}


async def test_chunks_follow_each_other_and_may_be_repeated(house: House) -> None:
    assert (await put(house, b"one")).next_offset_bytes == 3
    assert (await put(house, b"one")).next_offset_bytes == 3
    assert (await put(house, b"two", offset_bytes=3)).next_offset_bytes == 6
    assert (await put(house, b"one")).next_offset_bytes == 6
    done = await put(house, b"", offset_bytes=6, finish=True)
    assert done.artifact is not None
    assert await content_of(house, done.artifact) == b"onetwo"
    repeats: list[dict[str, Any]] = [
        {"content": b"two", "offset_bytes": 3},
        {"content": b"", "offset_bytes": 6, "finish": True},
        {"content": b"onetwo", "finish": True, "sha256": digest(b"onetwo")},
    ]
    for repeat in repeats:
        assert (await put(house, **repeat)).artifact == done.artifact


async def test_a_gap_is_refused_with_where_to_go_on(house: House) -> None:
    lost = await refusal(house, b"x", offset_bytes=5)
    assert (lost.reason, lost.metadata) == ("UPLOAD_OFFSET_MISMATCH", {"next_offset_bytes": "0"})
    await put(house, b"one")
    for offset in (1, 4):
        gap = await refusal(house, b"two", offset_bytes=offset)
        assert gap.metadata == {"next_offset_bytes": "3"}
    assert (await put(house, b"two", offset_bytes=3)).next_offset_bytes == 6


async def test_other_bytes_are_noticed(house: House) -> None:
    await put(house, b"one")
    assert (await refusal(house, b"two")).reason == "CONTENT_MISMATCH"
    whole = await refusal(house, b"abc", upload_id="w", finish=True, sha256=digest(b"abd"))
    assert whole.reason == "CONTENT_MISMATCH"
    done = await put(house, b"abd", upload_id="w", finish=True, sha256=digest(b"abd"))
    assert done.artifact is not None
    others: list[dict[str, Any]] = [
        {"content": b"abc", "finish": True},
        {"content": b"abde", "finish": True},
        {"content": b"ab", "finish": True},
        {"content": b"d", "offset_bytes": 2, "finish": True, "sha256": digest(b"x")},
        {"content": b"abd", "finish": True, "name": "other"},
        {"content": b"xx", "offset_bytes": 1},
    ]
    for other in others:
        refused = await refusal(house, upload_id="w", **other)
        assert (type(refused), refused.reason) == (FailedPrecondition, "UPLOAD_CLOSED")


async def test_a_hundred_equal_uploads_make_one_artifact(house: House) -> None:
    done = await asyncio.gather(*(put(house, b"same", finish=True) for _ in range(100)))
    assert len({one.artifact for one in done}) == 1


async def test_sizes_and_numbers_are_bounded(house: House) -> None:
    big = await refusal(house, b"x" * 1001)
    assert (type(big), big.reason) == (ResourceExhausted, "PAYLOAD_TOO_LARGE")
    assert big.metadata == {"limit_bytes": "1000"}
    for number in range(3):
        await put(house, b"x", upload_id=f"up{number}")
    many = await refusal(house, b"x", upload_id="more", caller=BEN)
    assert many.metadata == {"quota": "open_uploads", "limit": "3"}
    await put(house, b"x", caller=RIVAL)
    await put(house, b"y", upload_id="up0", offset_bytes=1, finish=True)
    await put(house, b"x", upload_id="more", caller=BEN)
    house.clock.advance(IDLE_SECONDS + 1)
    await put(house, b"x", upload_id="later", caller=BEN)


async def test_upload_ids_belong_to_their_caller(house: House) -> None:
    await put(house, b"one")
    assert (await put(house, b"another", caller=BEN)).next_offset_bytes == 7


async def test_an_upload_is_seen_by_its_owner_while_it_is_kept(house: House) -> None:
    made = (await put(house, b"x", finish=True)).artifact
    assert made is not None
    for caller in (BEN, RIVAL):
        with pytest.raises(NotFound):
            await house.artifacts.open(caller, made.id, 0)
    await house.artifacts.open(ADMIN, made.id, 0)
    house.clock.advance(25 * 3600)
    with pytest.raises(NotFound):
        await house.artifacts.open(ADA, made.id, 0)


# ---- of runs -------------------------------------------------------------------------------------


async def test_a_file_for_a_run_is_an_event_of_it(house: House) -> None:
    await house.run()
    made = (await put(house, b"x", run_id="run_1", finish=True)).artifact
    assert made is not None
    assert (made.run_id, made.expire_us) == ("run_1", None)
    events = await house.store.events("run_1", after=0, limit=10, max_bytes=10_000)
    saved = ProtoEventCodec().decode(events[-1].body).payload
    assert isinstance(saved, ArtifactSaved)
    assert saved.artifact_id == made.id


async def test_only_who_controls_an_active_run_adds_to_it(house: House) -> None:
    await house.run()
    for caller, refused in ((BEN, NotFound), (RIVAL, NotFound), (person("olga"), PermissionDenied)):
        assert type(await refusal(house, b"x", run_id="run_1", caller=caller)) is refused
    await house.run("run_2", state=RunState.SUCCEEDED)
    assert (await refusal(house, b"x", run_id="run_2", finish=True)).reason == "RUN_NOT_ACTIVE"
    assert isinstance(await refusal(house, b"x", run_id="run_9"), NotFound)


async def test_lists_leave_out_what_has_no_name(house: House) -> None:
    run = await house.run()
    rows = [
        Artifact(
            id=f"art_{number:02}",
            tenant=run.tenant,
            owner=run.starter,
            run_id=run.id,
            name="" if number % 3 else f"file-{number}",
            media_type="text/plain",
            size_bytes=0,
            sha256=digest(b""),
            create_us=number,
        )
        for number in range(20)
    ]
    await house.store.write(
        Reads(artifacts=[row.id for row in rows]),
        lambda _, now_us: Change(result=None, put=rows),
    )
    names: list[str] = []
    after = None
    while True:
        page = await house.artifacts.list_artifacts(ADA, "run_1", after=after, limit=3)
        names += [artifact.name for artifact in page.artifacts]
        after = page.after
        if after is None:
            break
    assert names == [f"file-{number}" for number in range(0, 20, 3)]
    with pytest.raises(NotFound):
        await house.artifacts.list_artifacts(BEN, "run_1", after=None, limit=3)


async def test_an_approver_sees_the_evidence_and_nothing_else(house: House) -> None:
    run = await house.run()
    evidence = (await put(house, b"e", upload_id="e", run_id="run_1", finish=True)).artifact
    other = (await put(house, b"o", upload_id="o", run_id="run_1", finish=True)).artifact
    assert evidence is not None
    assert other is not None
    await house.approval(run, approvers=(BEN.id,), evidence_artifact_id=evidence.id)
    for number in range(100):
        await house.approval(run, f"apr_later_{number}", approvers=(BEN.id,))
    found, _ = await house.artifacts.open(BEN, evidence.id, 0)
    assert found == evidence
    with pytest.raises(NotFound):
        await house.artifacts.open(BEN, other.id, 0)
