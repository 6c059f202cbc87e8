"""Blueprints: what agents are forked from."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode

from onbelay.v1 import agent_service_pb2 as pb
from tests.grpc.resource_server import Desk, desk


@pytest.fixture
async def d() -> AsyncIterator[Desk]:
    async with desk() as found:
        yield found


async def test_blueprints_are_listed_and_forked(d: Desk) -> None:
    listed = await d.call(d.agents.ListBlueprints, pb.ListBlueprintsRequest())
    (blueprint,) = listed.blueprints
    assert (blueprint.name, blueprint.title) == ("tables", "Tables")
    assert list(blueprint.expected_artifacts) == ["out.csv"]
    assert not blueprint.agent.id
    request = pb.ForkBlueprintRequest(blueprint="tables", name="mine")
    agent = (await d.call(d.agents.ForkBlueprint, request)).agent
    assert (agent.revision, agent.blueprint, agent.owner) == (1, "tables", "user:ada")
    assert agent.harness.python.entry_point == "pack.tables:tables"
    assert agent.harness.python.child_process
    # What it came with can be sent back, other code cannot.
    mask = FieldMask(paths=["harness", "description"])
    update = pb.UpdateAgentRequest(agent=agent, update_mask=mask)
    changed = await d.call(d.agents.UpdateAgent, update)
    assert changed.agent.harness == agent.harness
    update.agent.harness.python.entry_point = "os:system"
    refused = await d.refused(d.agents.UpdateAgent, update)
    assert refused.fields == ["agent.harness"]
    unknown = pb.ForkBlueprintRequest(blueprint="nothing")
    assert (await d.refused(d.agents.ForkBlueprint, unknown)).code is StatusCode.NOT_FOUND
