"""Watching one run, and lists of runs, over gRPC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from onbelay.v1 import run_pb2
from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay.v1 import watch_request_pb2 as pb
from onbelay.v1.event_pb2 import (
    EVENT_KIND_PROGRESS_REPORTED,
    EVENT_KIND_RUN_FINISHED,
    EVENT_KIND_TEXT_DELTA,
)
from onbelay.v1.run_filter_pb2 import RunFilter
from tests.grpc.spine_server import judged_server
from tests.recorder import Recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")

FINISHED, RECONNECT = pb.STREAM_END_REASON_FINISHED, pb.STREAM_END_REASON_RECONNECT
FAR = Timestamp(seconds=4_000_000_000)
SECOND = Duration(seconds=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    async with judged_server(tmp_path_factory.mktemp("watch")) as server:
        yield server.client


def sequences(replies: list[pb.WatchRunResponse]) -> list[int]:
    return [event.sequence for reply in replies for event in reply.events]


async def long_run(client: Recorder, count: int = 400) -> run_pb2.Run:
    run_id = await client.start("emitter", {"count": count})
    return await client.finished(run_id)


# ---- one run -------------------------------------------------------------------------------------


async def test_a_finished_run_is_told_whole_and_ends(client: Recorder) -> None:
    run = await long_run(client)
    async with client.stream("WatchRun", pb.WatchRunRequest(run_id=run.id)) as stream:
        replies = await stream.rest()
    assert stream.exchange.code is StatusCode.OK
    assert sequences(replies) == list(range(1, run.last_sequence + 1))
    assert replies[0].run.id == run.id
    assert not replies[0].events
    assert [reply.HasField("end") for reply in replies] == [False] * (len(replies) - 1) + [True]
    assert (replies[-1].end.reason, replies[-1].run) == (FINISHED, run)
    # A backlog travels many events a reply.
    assert len(replies) < run.last_sequence / 20


async def test_a_watch_begins_behind_its_position(client: Recorder) -> None:
    run = await long_run(client, 50)
    for position in (1, run.last_sequence // 2, run.last_sequence - 1, run.last_sequence):
        request = pb.WatchRunRequest(run_id=run.id, after_sequence=position)
        async with client.stream("WatchRun", request) as stream:
            assert sequences(await stream.rest()) == list(
                range(position + 1, run.last_sequence + 1)
            )


async def test_the_last_events(client: Recorder) -> None:
    run = await long_run(client, 50)
    for last, first in ((3, run.last_sequence - 2), (10_000, 1), (0, run.last_sequence + 1)):
        request = pb.WatchRunRequest(run_id=run.id, last_events=last)
        async with client.stream("WatchRun", request) as stream:
            assert sequences(await stream.rest()) == list(range(first, run.last_sequence + 1))


async def test_a_filter_moves_the_position_too(client: Recorder) -> None:
    run = await long_run(client, 50)
    log = await client.events(run.id)
    kinds = [EVENT_KIND_PROGRESS_REPORTED, EVENT_KIND_RUN_FINISHED]
    async with client.stream("WatchRun", pb.WatchRunRequest(run_id=run.id, kinds=kinds)) as stream:
        replies = await stream.rest()
    payloads = [event.WhichOneof("payload") for reply in replies for event in reply.events]
    assert payloads == ["progress_reported"] * 5 + ["run_finished"]
    assert replies[-1].complete_through == run.last_sequence
    without = pb.WatchRunRequest(run_id=run.id, except_kinds=[EVENT_KIND_TEXT_DELTA])
    async with client.stream("WatchRun", without) as stream:
        seen = sequences(await stream.rest())
    assert seen == [event.sequence for event in log if not event.HasField("text_delta")]


@pytest.mark.parametrize("method", ["WatchRun", "ListRunEvents"])
async def test_a_position_ahead_of_the_log_is_refused(client: Recorder, method: str) -> None:
    run = await long_run(client, 10)
    ahead = run.last_sequence + 1
    if method == "WatchRun":
        request = pb.WatchRunRequest(run_id=run.id, after_sequence=ahead)
        async with client.stream(method, request) as stream:
            assert await stream.next() is None
        refused = stream.exchange
    else:
        listing = pb.ListRunEventsRequest(run_id=run.id, after_sequence=ahead)
        refused = await client.exchange(method, listing)
    assert (refused.code, refused.reason) == (StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE")
    assert refused.metadata["oldest_sequence"] == "1"
    assert refused.metadata["last_sequence"] == str(run.last_sequence)


async def test_an_unknown_run_is_not_found(client: Recorder) -> None:
    async with client.stream("WatchRun", pb.WatchRunRequest(run_id="run_none")) as stream:
        assert await stream.next() is None
    assert (stream.exchange.code, stream.exchange.reason) == (StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_run_that_ends_while_it_is_watched(client: Recorder) -> None:
    run_id = await client.start("asker")
    approval = await client.pending(run_id)
    async with client.stream("WatchRun", pb.WatchRunRequest(run_id=run_id)) as stream:
        await stream.until(lambda reply: reply.complete_through >= 7)
        await client.decide(approval, "REJECT", comment="no")
        replies = await stream.rest()
    told = [reply.run.state for reply in replies if reply.HasField("run")]
    assert told[-1] == run_pb2.RUN_STATE_SUCCEEDED
    assert (replies[-1].end.reason, stream.exchange.code) == (FINISHED, StatusCode.OK)
    assert replies[-1].run == await client.get(run_id)


async def test_heartbeats_carry_the_position(client: Recorder) -> None:
    run_id = await client.start("sleeper")
    run = await client.reached(run_id, "BLOCKED")
    request = pb.WatchRunRequest(
        run_id=run_id, heartbeat_interval=SECOND, kinds=[EVENT_KIND_RUN_FINISHED]
    )
    async with client.stream("WatchRun", request) as stream:
        await stream.next()
        beat = await stream.until(lambda reply: not reply.HasField("run"))
        assert (list(beat.events), beat.complete_through) == ([], run.last_sequence)
        assert beat.HasField("server_time")
        beats = stream.exchange.replies
        assert 0.5 < beats[-1][0] - beats[0][0] < 2.5
    await client.stop(run_id)


async def test_two_watchers_hold_exactly_the_stored_log(client: Recorder) -> None:
    """One from the start; one that joins at a random event and reconnects ten times."""
    chance = random.Random(7)
    run_id = await client.start("emitter", {"count": 3000, "every": 5})

    async def faithful() -> list[object]:
        request = pb.WatchRunRequest(run_id=run_id)
        async with client.stream("WatchRun", request, "faithful") as stream:
            replies = await stream.rest()
        return [event for reply in replies for event in reply.events]

    async def fickle() -> tuple[int, list[object]]:
        joined = chance.randrange(2, 60)
        async with client.stream("WatchRun", pb.WatchRunRequest(run_id=run_id)) as stream:
            await stream.until(lambda reply: reply.complete_through >= joined)
        held: list[object] = []
        position = joined
        for turn in range(11):
            request = pb.WatchRunRequest(run_id=run_id, after_sequence=position)
            enough = len(held) + chance.randrange(1, 300) if turn < 10 else None
            async with client.stream("WatchRun", request, "fickle") as stream:
                while (reply := await stream.next()) is not None:
                    held += reply.events
                    position = reply.complete_through
                    if enough is not None and len(held) >= enough:
                        break
        return joined, held

    first, (joined, second) = await asyncio.gather(faithful(), fickle())
    log = await client.events(run_id)
    assert len(log) > 4000
    assert first == log
    assert second == log[joined:]


async def test_events_are_listed_in_pages_and_waited_for(client: Recorder) -> None:
    run = await long_run(client, 100)
    request = pb.ListRunEventsRequest(run_id=run.id, page_size=7)
    pages: list[pb.ListRunEventsResponse] = []
    while not pages or pages[-1].complete_through < run.last_sequence:
        pages.append(await client.call("ListRunEvents", request))
        request.after_sequence = pages[-1].complete_through
    seen = [event.sequence for page in pages for event in page.events]
    assert seen == list(range(1, run.last_sequence + 1))
    assert {page.last_sequence for page in pages} == {run.last_sequence}
    assert {page.state for page in pages} == {run_pb2.RUN_STATE_SUCCEEDED}
    assert all(a.complete_through < b.complete_through for a, b in pairwise(pages))

    run_id = await client.start("sleeper")
    waiting = await client.reached(run_id, "BLOCKED")
    request = pb.ListRunEventsRequest(
        run_id=run_id, after_sequence=waiting.last_sequence, wait=Duration(nanos=50_000_000)
    )
    assert not (await client.call("ListRunEvents", request)).events
    request.wait.CopyFrom(Duration(seconds=10))
    soon = asyncio.create_task(client.call("ListRunEvents", request))
    await client.stop(run_id)
    assert (await soon).events[0].sequence == waiting.last_sequence + 1


# ---- lists ---------------------------------------------------------------------------------------


async def test_a_watched_list_is_a_snapshot_and_then_what_changes(client: Recorder) -> None:
    labels = {"list": "changes"}
    old = [await client.start("hello", not_before=FAR, labels=labels) for _ in range(3)]
    which = RunFilter(labels=labels, states=[run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_RUNNING])
    async with client.stream("WatchRuns", pb.WatchRunsRequest(filter=which)) as stream:
        told: set[str] = set()
        reply = await stream.next()
        while not reply.caught_up:
            told |= {run.id for run in reply.runs}
            assert not any(run.HasField("input_json") for run in reply.runs)
            reply = await stream.next()
        assert told == set(old)
        new = await client.start("hello", not_before=FAR, labels=labels)
        await stream.until(lambda one: new in {run.id for run in one.runs})
        await client.stop(old[0])
        await stream.until(lambda one: old[0] in one.left_run_ids)
        request = runs_pb.UpdateRunRequest(run_id=old[1], labels={"list": "other"})
        request.update_mask.paths.append("labels")
        await client.call("UpdateRun", request)
        await stream.until(lambda one: old[1] in one.left_run_ids)


async def test_a_watched_list_brings_what_the_caller_may_decide(client: Recorder) -> None:
    labels = {"list": "approvals"}
    which = RunFilter(labels=labels)
    async with client.stream("WatchRuns", pb.WatchRunsRequest(filter=which)) as stream:
        await stream.until(lambda one: one.caught_up)
        run_id = await client.start("asker", labels=labels)

        def asks(one: pb.WatchRunsResponse) -> bool:
            return any(found.run_id == run_id for found in one.approvals)

        reply = await stream.until(asks)
        approval = next(found for found in reply.approvals if found.run_id == run_id)
        assert (approval.title, approval.can_decide) == ("Go on?", True)
        await client.decide(approval, "REJECT")
        reply = await stream.until(asks)
        decided = next(found for found in reply.approvals if found.run_id == run_id)
        assert (decided.id, decided.can_decide) == (approval.id, False)


async def test_a_quiet_list_has_heartbeats(client: Recorder) -> None:
    request = pb.WatchRunsRequest(
        filter=RunFilter(labels={"list": "empty"}), heartbeat_interval=SECOND
    )
    async with client.stream("WatchRuns", request) as stream:
        await stream.until(lambda one: one.caught_up)
        beat = await stream.until(lambda one: not one.approvals)
        assert (list(beat.runs), list(beat.left_run_ids)) == ([], [])


async def test_every_reply_fits_a_message(client: Recorder, tmp_path: Path) -> None:
    run = await long_run(client, 4000)
    async with client.stream("WatchRun", pb.WatchRunRequest(run_id=run.id)) as stream:
        replies = await stream.rest()
    assert max(reply.ByteSize() for reply in replies) < 400_000
    assert max(len(reply.events) for reply in replies) <= 128
