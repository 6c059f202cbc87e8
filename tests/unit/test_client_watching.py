"""Watching over cuts: every event once and in order, however often the stream breaks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from onbelay_client import NotFound, RunWatch, Unavailable
from onbelay_client import contract as pb
from onbelay_client.artifacts import Artifacts
from onbelay_client.calling import Caller


class Cut(grpc.RpcError, grpc.Call):
    """What gRPC raises when a stream ends early."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._code.name

    def trailing_metadata(self) -> tuple[Any, ...]:
        return ()

    def initial_metadata(self) -> tuple[Any, ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> None:
        return None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


class Stream:
    """Replies that end with an error or not."""

    def __init__(self, replies: Iterator[Any]) -> None:
        self._replies = replies
        self.cancelled = False

    def __iter__(self) -> Iterator[Any]:
        return self._replies

    def cancel(self) -> None:
        self.cancelled = True


def events(first: int, last: int) -> list[pb.RunEvent]:
    return [pb.RunEvent(sequence=sequence) for sequence in range(first, last + 1)]


class BreakingServer:
    """A log of `last` events, sent in random pieces over streams that break at random."""

    def __init__(self, last: int, seed: int) -> None:
        self.last = last
        self.random = random.Random(seed)
        self.requests: list[pb.WatchRunRequest] = []
        self.breaks_left = 10

    def __call__(self, request: pb.WatchRunRequest, **_: Any) -> Stream:
        self.requests.append(request)
        return Stream(self._replies(request))

    def _replies(self, request: pb.WatchRunRequest) -> Iterator[pb.WatchRunResponse]:
        position = request.after_sequence
        if request.WhichOneof("position") == "last_events":
            position = max(self.last - request.last_events, 0)
        while position < self.last:
            until = min(position + self.random.randint(1, 3), self.last)
            # A server that is less than exact repeats or skips: neither may reach the reader.
            mistake = self.random.choice(["none", "none", "repeat", "skip"])
            if mistake == "skip" and until < self.last:
                yield pb.WatchRunResponse(events=events(until + 1, until + 1))
                return
            first = max(position, 1) if mistake == "repeat" else position + 1
            yield pb.WatchRunResponse(events=events(first, until), complete_through=until)
            position = until
            if self.breaks_left and self.random.random() < 0.4:
                self.breaks_left -= 1
                how = self.random.choice(["cut", "end", "reconnect", "deadline"])
                if how == "end":
                    return
                if how == "reconnect":
                    end = pb.StreamEnd(reason=pb.STREAM_END_REASON_RECONNECT)
                    yield pb.WatchRunResponse(complete_through=position, end=end)
                late = how == "deadline"
                code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.UNAVAILABLE
                raise Cut(code)
        end = pb.StreamEnd(reason=pb.STREAM_END_REASON_FINISHED)
        yield pb.WatchRunResponse(
            run=pb.Run(state=pb.RUN_STATE_SUCCEEDED), complete_through=position, end=end
        )


def impatient(**changes: Any) -> Caller:
    return Caller("secret", sleep=lambda seconds: None, **changes)


def watch(server: Any, **changes: Any) -> RunWatch:
    values: dict[str, Any] = {"run_id": "run_1", "position": 0, "caller": impatient()}
    return RunWatch(method=server, **(values | changes))


@pytest.mark.parametrize("seed", range(30))
def test_every_event_once_over_breaks_repeats_and_skips(seed: int) -> None:
    server = BreakingServer(40, seed)
    watching = watch(server)
    replies = list(watching)
    seen = [event.sequence for reply in replies for event in reply.events]
    assert seen == list(range(1, 41))
    assert watching.position == 40
    ends = [reply.end.reason for reply in replies if reply.HasField("end")]
    assert ends == [pb.STREAM_END_REASON_FINISHED]
    assert watching.reconnects == len(server.requests) - 1


@pytest.mark.parametrize("seed", range(10))
def test_the_newest_events_then_live(seed: int) -> None:
    server = BreakingServer(40, seed)
    seen = [event.sequence for event in watch(server, position=None, last_events=5).events()]
    assert seen == list(range(seen[0], 41))
    assert seen[0] >= 35


def test_patience_ends() -> None:
    now = [0.0]
    calls = [0]

    def away(request: Any, **_: Any) -> None:
        calls[0] += 1
        now[0] += 4
        raise Cut(grpc.StatusCode.UNAVAILABLE)

    method: Any = away
    with pytest.raises(Unavailable) as raised:
        impatient(monotonic=lambda: now[0]).call(method, pb.GetRunRequest())
    assert raised.value.reason == ""
    assert calls[0] in (7, 8)


def test_a_refusal_ends_the_watch() -> None:
    def refuse(request: Any, **_: Any) -> Stream:
        def replies() -> Iterator[pb.WatchRunResponse]:
            raise Cut(grpc.StatusCode.NOT_FOUND)
            yield

        return Stream(replies())

    with pytest.raises(NotFound):
        list(watch(refuse))


def test_a_server_that_stays_away_ends_the_watch() -> None:
    now = [0.0]

    def away(request: Any, **_: Any) -> Stream:
        def replies() -> Iterator[pb.WatchRunResponse]:
            now[0] += 1
            raise Cut(grpc.StatusCode.UNAVAILABLE)
            yield

        return Stream(replies())

    with pytest.raises(Unavailable):
        list(watch(away, caller=impatient(monotonic=lambda: now[0])))
    assert now[0] < 40


def test_silence_before_a_cut_is_not_counted_and_one_that_answered_is_waited_for() -> None:
    now = [0.0]
    told: list[str] = []

    def restarting(request: Any, **_: Any) -> Stream:
        def replies() -> Iterator[pb.WatchRunResponse]:
            if request.after_sequence == 0:
                yield pb.WatchRunResponse(events=events(1, 2))
                now[0] += 9  # no heartbeat was due yet
                raise Cut(grpc.StatusCode.UNAVAILABLE)
            if now[0] < 30:
                now[0] += 4
                raise Cut(grpc.StatusCode.UNAVAILABLE)
            reply = pb.WatchRunResponse(events=events(3, 4))
            reply.end.reason = pb.STREAM_END_REASON_FINISHED
            yield reply

        return Stream(replies())

    watching = watch(
        restarting,
        caller=impatient(monotonic=lambda: now[0], patience_seconds=3.0),
        patience_seconds=60.0,
        on_cut=lambda error: told.append(type(error).__name__),
    )
    assert [event.sequence for event in watching.events()] == [1, 2, 3, 4]
    assert told == ["Unavailable"]


def test_giving_up_cancels_the_stream() -> None:
    streams: list[Stream] = []

    def endless(request: Any, **_: Any) -> Stream:
        streams.append(Stream(iter([pb.WatchRunResponse(events=events(1, 1))] * 3)))
        return streams[-1]

    iterator = iter(watch(endless))
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert streams[0].cancelled


def test_a_download_goes_on_where_it_was_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    content = b"0123456789" * 100
    description = pb.Artifact(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    offsets: list[int] = []

    def get_artifact(request: pb.GetArtifactRequest, **_: Any) -> Stream:
        def replies() -> Iterator[pb.GetArtifactResponse]:
            offset = request.offset_bytes
            offsets.append(offset)
            yield pb.GetArtifactResponse(artifact=description)
            yield pb.GetArtifactResponse(content=content[offset : offset + 300])
            if offset + 300 < len(content):
                raise Cut(grpc.StatusCode.UNAVAILABLE)

        return Stream(replies())

    artifacts = Artifacts(grpc.insecure_channel("127.0.0.1:1"), impatient())
    monkeypatch.setattr(artifacts._stub, "GetArtifact", get_artifact)
    artifacts.download("art_1", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert offsets == [0, 300, 600, 900]
