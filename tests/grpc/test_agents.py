"""AgentService over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from onbelay.v1 import agent_pb2, budget_pb2, harness_pb2, tool_pb2
from onbelay.v1 import agent_service_pb2 as pb
from tests.grpc.resource_server import Desk, desk
from tests.resources import ADA

Code = grpc.StatusCode


@pytest.fixture
async def d() -> AsyncIterator[Desk]:
    async with desk() as found:
        yield found


def full(name: str = "full") -> agent_pb2.Agent:
    """An agent with every field that a caller can set."""
    return agent_pb2.Agent(
        name=name,
        description="Does things.\nWell.",
        harness=harness_pb2.Harness(model=harness_pb2.ModelHarness(max_turns=7)),
        instructions="Be brief.",
        model="test/small",
        model_settings_json={"test/small": '{"temperature": 0.5}'},
        input_schema_json='{ "type": "object" }',
        output_schema_json='{"type":"string"}',
        allowed_tools=["files.read", "mail.send"],
        allowed_risk_max=tool_pb2.RISK_EXTERNAL_SEND,
        env={"LANG": "C"},
        secrets={"KEY": "vault/key"},
        skills=["csv"],
        budget=budget_pb2.Budget(max_cost_nano_usd=5, max_tool_calls=0),
        approval_policy=agent_pb2.ApprovalPolicy(
            approve_from=tool_pb2.RISK_WRITE,
            always_tools=["mail.send"],
            four_eyes=True,
            review_result=True,
            undo_window=Duration(seconds=3),
            expire_after=Duration(seconds=60),
        ),
        limits=agent_pb2.AgentLimits(
            total=Duration(seconds=100),
            first_response=Duration(seconds=10),
            per_tool=Duration(seconds=11),
            idle=Duration(seconds=12),
            longest_wait=Duration(seconds=13),
            stop_grace=Duration(nanos=500_000_000),
            stop_kill=Duration(seconds=14),
            hold_wait=Duration(seconds=15),
            max_attempts=9,
            max_events=1_000,
            max_log_bytes=2_000_000,
            max_memory_bytes=2**25,
            max_concurrent_runs=3,
        ),
        on_wait=agent_pb2.ON_WAIT_HOLD,
        on_code_change=agent_pb2.ON_CODE_CHANGE_FAIL,
        accepts_messages=True,
        approvers=["user:ben"],
        allowed_users=["user:ada", "user:ben"],
    )


def default_limits() -> agent_pb2.AgentLimits:
    """What the contract says of an agent that names no limits."""
    return agent_pb2.AgentLimits(
        total=Duration(seconds=86_400),
        first_response=Duration(seconds=300),
        per_tool=Duration(seconds=1_800),
        idle=Duration(seconds=60),
        longest_wait=Duration(seconds=30 * 86_400),
        stop_grace=Duration(seconds=5),
        stop_kill=Duration(seconds=3),
        max_attempts=5,
        max_events=1_000_000,
        max_log_bytes=2**30,
    )


def settings(agent: agent_pb2.Agent) -> agent_pb2.Agent:
    """What a caller set of an agent."""
    found = agent_pb2.Agent()
    found.CopyFrom(agent)
    for given in ("id", "etag", "revision", "source", "owner", "create_time", "update_time"):
        found.ClearField(given)
    return found


async def create(d: Desk, agent: agent_pb2.Agent, **more: Any) -> agent_pb2.Agent:
    reply = await d.call(d.agents.CreateAgent, pb.CreateAgentRequest(agent=agent, **more))
    made: agent_pb2.Agent = reply.agent
    return made


async def test_every_setting_comes_back_as_it_was_given(d: Desk) -> None:
    covered = {field.name for field, _ in full().ListFields()}
    given = {
        "id", "etag", "revision", "source", "owner", "blueprint", "create_time", "update_time",
    }  # fmt: skip
    assert covered | given == {field.name for field in agent_pb2.Agent.DESCRIPTOR.fields}
    for part in (full().approval_policy, full().limits):
        assert len(part.ListFields()) == len(part.DESCRIPTOR.fields)
    made = await create(d, full())
    assert settings(made) == full()
    reply = await d.call(d.agents.GetAgent, pb.GetAgentRequest(agent=made.id))
    assert reply.agent == made
    assert (made.revision, made.owner, made.source) == (1, "user:ada", agent_pb2.AGENT_SOURCE_API)
    limits = (await d.house.agents.get(ADA, made.id, None)).revision.limits
    assert (limits.total_seconds, limits.first_response_seconds) == (100, 10)
    assert (limits.tool_seconds, limits.idle_seconds, limits.wait_seconds) == (11, 12, 13)
    assert (limits.grace_seconds, limits.kill_seconds, limits.approval_seconds) == (0.5, 14, 60)
    assert (limits.max_attempts, limits.max_events, limits.max_log_bytes) == (9, 1_000, 2_000_000)


async def test_what_was_not_given_stays_absent_or_shows_what_applies(d: Desk) -> None:
    made = await create(d, agent_pb2.Agent(name="bare"))
    bare = agent_pb2.Agent(
        name="bare",
        allowed_risk_max=tool_pb2.RISK_COMPUTE,
        limits=default_limits(),
        on_code_change=agent_pb2.ON_CODE_CHANGE_HOLD,
    )
    assert settings(made) == bare


async def test_an_update_changes_the_fields_of_its_mask_only(d: Desk) -> None:
    made = await create(d, full())
    wanted = agent_pb2.Agent(id=made.id, name="renamed", description="ignored", skills=["new"])
    wanted.limits.total.seconds = 5
    mask = FieldMask(paths=["name", "skills", "limits", "env"])
    reply = await d.call(
        d.agents.UpdateAgent,
        pb.UpdateAgentRequest(agent=wanted, update_mask=mask, etag=made.etag),
    )
    expected = full("renamed")
    expected.skills[:] = ["new"]
    expected.env.clear()
    expected.limits.CopyFrom(default_limits())
    expected.limits.MergeFrom(wanted.limits)
    assert settings(reply.agent) == expected
    assert reply.agent.revision == 2
    old = await d.call(d.agents.GetAgent, pb.GetAgentRequest(agent="renamed", revision=1))
    assert old.agent.description == full().description
    assert list(old.agent.skills) == ["csv"]
    revisions = await d.call(
        d.agents.ListAgentRevisions, pb.ListAgentRevisionsRequest(agent="renamed", page_size=1)
    )
    assert [one.revision for one in revisions.revisions] == [2]
    rest = await d.call(
        d.agents.ListAgentRevisions,
        pb.ListAgentRevisionsRequest(
            agent="renamed", page_size=1, page_token=revisions.next_page_token
        ),
    )
    assert ([one.revision for one in rest.revisions], rest.next_page_token) == ([1], "")


async def test_an_expiry_goes_with_the_policy_it_was_part_of(d: Desk) -> None:
    made = await create(d, full())
    seconds = []
    for path in ("description", "approval_policy"):
        request = request_of(agent_pb2.Agent(id=made.id), FieldMask(paths=[path]))
        reply = await d.call(d.agents.UpdateAgent, request)
        revision = await d.house.store.revision(made.id, reply.agent.revision)
        seconds.append(revision.limits.approval_seconds if revision else None)
    assert seconds == [60, 3_600]


@pytest.mark.parametrize(
    "path", ["etag", "id", "revision", "blueprint", "limits.total", "nothing", "name", ""]
)
async def test_masks_that_are_refused(d: Desk, path: str) -> None:
    await create(d, full())
    request = pb.UpdateAgentRequest(
        agent=agent_pb2.Agent(name="full"), update_mask=FieldMask(paths=[path])
    )
    refused = await d.refused(d.agents.UpdateAgent, request)
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused.fields == ["update_mask.paths"]


async def test_etags_names_and_request_ids(d: Desk) -> None:
    made = await create(d, full(), request_id="r1")
    assert await create(d, full(), request_id="r1") == made
    again = await d.refused(
        d.agents.CreateAgent, pb.CreateAgentRequest(agent=full("b"), request_id="r1")
    )
    assert (again.code, again.reason) == (Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    taken = await d.refused(d.agents.CreateAgent, pb.CreateAgentRequest(agent=full()))
    assert (taken.code, taken.reason) == (Code.ALREADY_EXISTS, "NAME_TAKEN")
    stale = pb.DeleteAgentRequest(agent="full", etag="old")
    refused = await d.refused(d.agents.DeleteAgent, stale)
    assert (refused.code, refused.reason) == (Code.ABORTED, "ETAG_MISMATCH")
    assert refused.metadata == {"etag": made.etag}
    gone = pb.DeleteAgentRequest(agent="full", etag=made.etag, request_id="d1")
    for _ in range(2):
        await d.call(d.agents.DeleteAgent, gone)
    assert (await d.refused(d.agents.GetAgent, pb.GetAgentRequest(agent="full"))).reason == (
        "NOT_FOUND"
    )


async def test_other_tenants_and_other_people(d: Desk) -> None:
    made = await create(d, full())
    foreign = await d.refused(d.agents.GetAgent, pb.GetAgentRequest(agent=made.id), "rival")
    unknown = await d.refused(d.agents.GetAgent, pb.GetAgentRequest(agent="agt_x"), "rival")
    assert foreign == unknown
    denied = await d.refused(d.agents.DeleteAgent, pb.DeleteAgentRequest(agent=made.id), "ben")
    assert denied.code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("agent", "field", "reason"),
    [
        ({"input_schema_json": "{"}, "agent.input_schema_json", "INVALID_JSON"),
        ({"input_schema_json": '{"a":1,"a":2}'}, "agent.input_schema_json", "INVALID_JSON"),
        ({"input_schema_json": '{"type":1}'}, "agent.input_schema_json", "INVALID_FIELD"),
        (
            {"output_schema_json": '{"$ref":"http://h/s"}'},
            "agent.output_schema_json",
            "INVALID_FIELD",
        ),
        ({"env": {"LD_PRELOAD": "x"}}, "agent.env['LD_PRELOAD']", "INVALID_FIELD"),
        (
            {"model_settings_json": {"a/b": "[]"}},
            'agent.model_settings_json["a/b"]',
            "INVALID_FIELD",
        ),
        (
            {"harness": {"python": {"entry_point": "os:system"}}},
            "agent.harness.python",
            "INVALID_FIELD",
        ),
        ({"blueprint": "nothing"}, "agent.blueprint", "INVALID_FIELD"),
        ({"limits": {"stop_grace": Duration(seconds=601)}}, "agent.limits.stop_grace", None),
        ({"name": "Full"}, "agent.name", None),
    ],
)
async def test_hostile_agents(d: Desk, agent: dict[str, Any], field: str, reason: str) -> None:
    request = pb.CreateAgentRequest(agent=agent_pb2.Agent(**{"name": "x", **agent}))
    refused = await d.refused(d.agents.CreateAgent, request)
    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, reason or "INVALID_FIELD")
    assert refused.fields == [field]


async def test_a_command_needs_the_scope_to_run_code(d: Desk) -> None:
    agent = agent_pb2.Agent(name="x")
    agent.harness.subprocess.command = "tool"
    refused = await d.refused(d.agents.CreateAgent, pb.CreateAgentRequest(agent=agent))
    assert (refused.code, refused.reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
    assert refused.metadata == {"scope": "agents:run_code"}
    reply = await d.call(d.agents.CreateAgent, pb.CreateAgentRequest(agent=agent), "admin")
    assert reply.agent.harness == agent.harness


async def test_lists_come_in_pages_without_the_large_fields(d: Desk) -> None:
    for name in ("c", "a", "b"):
        await create(d, full(name))
    names: list[str] = []
    token = ""
    while True:
        request = pb.ListAgentsRequest(page_size=2, page_token=token)
        page = await d.call(d.agents.ListAgents, request)
        names += [one.name for one in page.agents]
        assert all(not one.instructions and not one.input_schema_json for one in page.agents)
        token = page.next_page_token
        if not token:
            break
    assert names == ["a", "b", "c", "hello", "tables"]
    first = await d.call(d.agents.ListAgents, pb.ListAgentsRequest(page_size=1))
    for request, who in (
        (pb.ListAgentsRequest(page_token=first.next_page_token), "ben"),
        (pb.ListAgentsRequest(page_token=first.next_page_token, name_prefix="a"), "ada"),
        (pb.ListAgentsRequest(page_token="AAAA"), "ada"),
    ):
        refused = await d.refused(d.agents.ListAgents, request, who)
        assert refused.reason == "PAGE_TOKEN_INVALID"


def request_of(agent: agent_pb2.Agent, mask: FieldMask) -> pb.UpdateAgentRequest:
    return pb.UpdateAgentRequest(agent=agent, update_mask=mask)


async def test_agents_from_code_are_shown_and_read_only(d: Desk) -> None:
    agent = (await d.call(d.agents.GetAgent, pb.GetAgentRequest(agent="hello"))).agent
    assert (agent.source, agent.blueprint) == (agent_pb2.AGENT_SOURCE_CODE, "")
    assert agent.harness.python.entry_point == "hello:hello"
    refused = await d.refused(d.agents.DeleteAgent, pb.DeleteAgentRequest(agent="hello"), "admin")
    assert (refused.code, refused.reason) == (Code.FAILED_PRECONDITION, "AGENT_READ_ONLY")


async def test_validation_says_everything_and_keeps_nothing(d: Desk) -> None:
    agent = full("x")
    agent.env["PATH"] = "/tmp"
    reply = await d.call(d.agents.ValidateAgent, pb.ValidateAgentRequest(agent=agent))
    assert not reply.startable
    assert {problem.field for problem in reply.problems} == {
        "agent.env['PATH']",
        "agent.harness",
        "agent.allowed_tools[0]",
        "agent.allowed_tools[1]",
        "agent.secrets",
        "agent.skills",
        "agent.budget",
        "agent.approval_policy.approve_from",
        "agent.approval_policy.always_tools",
        "agent.approval_policy.four_eyes",
        "agent.approval_policy.review_result",
        "agent.approval_policy.undo_window",
        "agent.limits.max_memory_bytes",
        "agent.limits.max_concurrent_runs",
        "agent.on_wait",
        "agent.limits.hold_wait",
        "agent.output_schema_json",
    }
    good = agent_pb2.Agent(name="x", blueprint="tables", on_wait=agent_pb2.ON_WAIT_REPLAY)
    good.approval_policy.undo_window.SetInParent()
    good.budget.SetInParent()
    reply = await d.call(d.agents.ValidateAgent, pb.ValidateAgentRequest(agent=good))
    assert (reply.startable, list(reply.problems)) == (True, [])
    bad = agent_pb2.Agent(name="x", input_schema_json="{")
    reply = await d.call(d.agents.ValidateAgent, pb.ValidateAgentRequest(agent=bad))
    assert [one.field for one in reply.problems] == ["agent.input_schema_json"]
    assert (await d.refused(d.agents.GetAgent, pb.GetAgentRequest(agent="x"))).code is (
        Code.NOT_FOUND
    )
