"""What an agent's limits do to its runs: each ends them with a reason of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from onbelay.v1 import agent_pb2, agent_service_pb2, run_pb2, tool_pb2
from tests.grpc.spine_server import judged_server
from tests.recorder import Recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECOND = Duration(seconds=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    folder = tmp_path_factory.mktemp("limits")
    agents = ("asker", "counter", "loud", "sleeper", "toolsmith")
    async with judged_server(folder, agents=agents) as server:
        yield server.client


async def limited(
    client: Recorder,
    code: str,
    name: str,
    *,
    tools: Sequence[str] = (),
    risk: tool_pb2.Risk.ValueType = tool_pb2.RISK_UNSPECIFIED,
    **limits: Any,
) -> agent_pb2.Agent:
    """An agent that runs registered code within limits of its own."""
    agent = agent_pb2.Agent(
        name=name,
        blueprint=code,
        allowed_tools=tools,
        allowed_risk_max=risk,
        limits=agent_pb2.AgentLimits(stop_grace=Duration(), **limits),
    )
    request = agent_service_pb2.CreateAgentRequest(agent=agent)
    made: agent_pb2.Agent = (await client.call("CreateAgent", request)).agent
    return made


async def failure(client: Recorder, run_id: str) -> tuple[str, str]:
    """Why the run failed: the reason, and the sentence."""
    run = await client.finished(run_id)
    assert run.state == run_pb2.RUN_STATE_FAILED, run_pb2.RunState.Name(run.state)
    reason = run_pb2.RunFailureReason.Name(run.error.reason)
    return reason.removeprefix("RUN_FAILURE_REASON_"), run.error.message


async def test_the_total_limit_ends_a_run_that_works(client: Recorder) -> None:
    await limited(client, "sleeper", "hasty", total=SECOND)
    run_id = await client.start("hasty", {"seconds": 60, "in_step": True})
    reason, message = await failure(client, run_id)
    assert reason == "TIMED_OUT"
    assert "total limit" in message


async def test_waits_do_not_count_towards_the_total(client: Recorder) -> None:
    await limited(client, "sleeper", "napper", total=SECOND)
    run = await client.finished(await client.start("napper", {"seconds": 1.5}))
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_question_expires_at_the_longest_wait(client: Recorder) -> None:
    await limited(client, "asker", "impatient", longest_wait=SECOND)
    run_id = await client.start("impatient")
    # Its agent does not handle that nobody answered.
    reason, _ = await failure(client, run_id)
    assert reason == "AGENT_ERROR"
    kinds = [one.WhichOneof("payload") for one in await client.events(run_id)]
    assert kinds.count("approval_expired") == 1


async def test_a_loop_that_blocks_is_ended_and_its_thread_named(client: Recorder) -> None:
    await limited(client, "loud", "blocked", idle=SECOND)
    reason, message = await failure(client, await client.start("blocked", {"silent": 4.0}))
    assert reason == "TIMED_OUT"
    assert "no pulse" in message


async def test_a_run_that_says_nothing_is_ended(client: Recorder) -> None:
    await limited(client, "loud", "speechless", first_response=SECOND)
    reason, message = await failure(client, await client.start("speechless", {"silent": 3.0}))
    assert reason == "TIMED_OUT"
    assert "first response" in message


async def test_asking_for_a_step_is_a_first_response(client: Recorder) -> None:
    await limited(client, "sleeper", "mute", first_response=SECOND)
    run_id = await client.start("mute", {"seconds": 1.5, "in_step": True})
    assert (await client.finished(run_id)).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_tool_call_that_takes_too_long_fails(client: Recorder) -> None:
    await limited(
        client, "toolsmith", "quick", per_tool=SECOND, tools=["look"], risk=tool_pb2.RISK_READ
    )
    run_id = await client.start("quick", {"tool": "look", "gate": "/nonexistent/gate"})
    reason, message = await failure(client, run_id)
    assert reason == "AGENT_ERROR"
    assert "look" in message or "1 s" in message
    ends = [
        one.tool_call_finished
        for one in await client.events(run_id)
        if one.HasField("tool_call_finished")
    ]
    assert [one.WhichOneof("outcome") for one in ends] == ["error"]


async def test_the_history_limit_ends_a_run_with_a_warning_before(client: Recorder) -> None:
    await limited(client, "counter", "talkative", max_events=100)
    run_id = await client.start("talkative", {"steps": 200})
    reason, message = await failure(client, run_id)
    assert reason == "HISTORY_LIMIT"
    assert "100" in message
    events = await client.events(run_id)
    warnings = [one.log_written.message for one in events if one.HasField("log_written")]
    assert len(warnings) == 1
    assert "limit" in warnings[0]


async def test_the_limit_of_bytes_ends_a_run(client: Recorder) -> None:
    await limited(client, "loud", "heavy", max_log_bytes=2**20)
    run_id = await client.start("heavy", {"pieces": 20, "size": 100_000})
    reason, message = await failure(client, run_id)
    assert reason == "HISTORY_LIMIT"
    assert "bytes" in message


async def test_what_applies_is_shown_also_for_agents_of_code(client: Recorder) -> None:
    request = agent_service_pb2.GetAgentRequest(agent="sleeper")
    limits = (await client.call("GetAgent", request)).agent.limits
    assert limits.stop_grace.ToMilliseconds() == 200
    assert limits.stop_kill.ToMilliseconds() == 500
    for field in ("total", "first_response", "per_tool", "idle", "longest_wait"):
        assert getattr(limits, field).ToSeconds() > 0
    assert limits.max_attempts > 0
    assert limits.max_events > 0
    assert limits.max_log_bytes > 0
