"""Golden conversations: what a server says to the same words must not change by accident.

Run with ONBELAY_WRITE_GOLDEN=1 to write the transcripts anew, and read the difference.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from onbelay.v1 import run_request_pb2 as runs_pb
from onbelay.v1 import watch_request_pb2 as watch_pb
from tests.grpc.spine_server import judged_server
from tests.recorder import Exchange, Recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDER = Path(__file__).parent / "golden"
_ID = re.compile(r"\b(run|apr|agt|art)_[0-9a-z]{26}\b")
_VARIES = re.compile(r"(_time|_at|_until|since|until|duration|idempotency_key|^time)$")
"""Times, and what is derived from a run's id."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    async with judged_server(tmp_path_factory.mktemp("golden")) as server:
        yield server.client


async def greeted(client: Recorder) -> None:
    run_id = await client.start("hello", {"name": "Ada"}, request_id="golden-1", title="Greet")
    await client.finished(run_id)
    await watched(client, run_id)
    await client.exchange("GetRun", runs_pb.GetRunRequest(run_id=run_id))


async def counted(client: Recorder) -> None:
    run_id = await client.start("counter", {"steps": 2}, request_id="golden-2")
    await client.finished(run_id)
    await watched(client, run_id)


async def approved(client: Recorder) -> None:
    run_id = await client.start("asker", request_id="golden-3")
    await client.reached(run_id, "WAITING_FOR_APPROVAL")
    await client.decide(await client.pending(run_id), "APPROVE", comment="go")
    await client.reached(run_id, "WAITING_FOR_INPUT")
    await client.decide(await client.pending(run_id), "ANSWER", answer_json='"blue"')
    await client.finished(run_id)
    await watched(client, run_id)


async def stopped(client: Recorder) -> None:
    run_id = await client.start("asker", request_id="golden-4")
    await client.reached(run_id, "WAITING_FOR_APPROVAL")
    await client.stop(run_id)
    await client.stop(run_id, "again")
    await watched(client, run_id)


async def called(client: Recorder) -> None:
    run_id = await client.start("toolsmith", {"tool": "write"}, request_id="golden-5")
    await client.finished(run_id)
    await watched(client, run_id)


async def refused(client: Recorder) -> None:
    run_id = await client.start("hello", request_id="golden-6")
    await client.finished(run_id)
    request = watch_pb.ListRunEventsRequest(run_id=run_id, after_sequence=99)
    await client.exchange("ListRunEvents", request)
    await client.exchange("GetRun", runs_pb.GetRunRequest(run_id="run_unknown"))
    other = runs_pb.StartRunRequest(request_id="golden-6", agent="counter")
    await client.exchange("StartRun", other)


CONVERSATIONS: dict[str, Callable[[Recorder], Awaitable[None]]] = {
    talk.__name__: talk for talk in (greeted, counted, approved, stopped, called, refused)
}


async def watched(client: Recorder, run_id: str) -> None:
    async with client.stream("WatchRun", watch_pb.WatchRunRequest(run_id=run_id)) as stream:
        await stream.rest()


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_the_conversation_is_as_it_was(client: Recorder, name: str) -> None:
    before = len(client.recording.exchanges)
    await CONVERSATIONS[name](client)
    said = [one for one in client.recording.exchanges[before:] if one.code is not None]
    text = json.dumps(Normal().transcript(said), indent=1, ensure_ascii=False) + "\n"
    path = FOLDER / f"{name}.json"
    if os.environ.get("ONBELAY_WRITE_GOLDEN") == "1":
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text)
    assert json.loads(text) == json.loads(path.read_text())


_CLAIM = ("start_time", "ready_time", "attempt", "epoch", "last_sequence")
"""What a run has at its start depends on whether a worker was free for it in that moment."""


class Normal:
    """Puts names in the place of ids, and leaves out what differs from day to day."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def transcript(self, exchanges: list[Exchange]) -> list[dict[str, Any]]:
        return [self._turn(exchange) for exchange in exchanges]

    def _turn(self, exchange: Exchange) -> dict[str, Any]:
        assert exchange.code is not None
        turn: dict[str, Any] = {
            "method": exchange.method,
            "request": self._plain(
                MessageToDict(exchange.request, preserving_proto_field_name=True)
            ),
            "code": exchange.code.name,
        }
        if exchange.reason:
            turn["reason"] = exchange.reason
            turn["metadata"] = self._plain(exchange.metadata)
        replies = [
            MessageToDict(reply, preserving_proto_field_name=True) for _, reply in exchange.replies
        ]
        if exchange.method == "WatchRun":
            # How many events travel together is chance; what they are is not.
            turn["first"] = self._plain({k: v for k, v in replies[0].items() if k == "run"})
            turn["events"] = self._plain([e for one in replies for e in one.get("events", ())])
            turn["last"] = self._plain(replies[-1])
            for event in turn["events"]:
                if "run_started" in event:
                    event.pop("epoch", None)
        elif exchange.method == "StartRun" and replies:
            turn["reply"] = self._plain(replies[0])
            run = turn["reply"]["run"]
            assert run["state"] in {"RUN_STATE_QUEUED", "RUN_STATE_RUNNING"}
            run["state"] = "<queued or running>"
            for name in _CLAIM:
                run.pop(name, None)
        elif replies:
            turn["reply"] = self._plain(replies[0])
        return turn

    def _plain(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self._plain(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self._plain(part) for part in value]
        if isinstance(value, str):
            return f"<{key}>" if _VARIES.search(key) else _ID.sub(self._named, value)
        return value

    def _named(self, match: re.Match[str]) -> str:
        kind = match.group(1)
        number = sum(name.startswith(kind) for name in self._names.values()) + 1
        return self._names.setdefault(match.group(), f"{kind}-{number}")
