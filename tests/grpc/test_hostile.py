"""Every hostile call gets exactly what the contract says, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from onbelay.v1 import agent_service_pb2, run_request_pb2
from tests.grpc.edge_server import AGENT, RUN, Refused, bearer
from tests.grpc.hostile_call import Hostile
from tests.grpc.hostile_calls import hostile_calls
from tests.grpc.hostile_server import Seeds, hostile_server

CALLS = list(hostile_calls())

# One server takes all of it, one after the other: that it bears them is part of the test.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeds() -> AsyncIterator[Seeds]:
    async with hostile_server() as found:
        yield found


async def refusal(seeds: Seeds, hostile: Hostile) -> Refused:
    try:
        await seeds.send(hostile.path, hostile.data(seeds), hostile.metadata)
    except grpc.aio.AioRpcError as problem:
        return Refused.of(problem)
    return Refused(grpc.StatusCode.OK, "")


async def test_there_are_a_hundred_and_no_two_have_a_name() -> None:
    assert len(CALLS) >= 100
    assert len({hostile.name for hostile in CALLS}) == len(CALLS)


@pytest.mark.parametrize("hostile", CALLS, ids=lambda hostile: hostile.name)
async def test_a_hostile_call(seeds: Seeds, hostile: Hostile) -> None:
    found = await refusal(seeds, hostile)
    assert (found.code, found.reason) == (hostile.code, hostile.reason), found.text
    assert found.infos == 1
    if hostile.field:
        assert any(name.startswith(hostile.field) for name in found.fields), found.fields
    assert "" not in found.fields
    assert "Traceback" not in found.text
    assert len(found.text) <= 500


@pytest.mark.parametrize("path", sorted({hostile.path for hostile in CALLS}))
async def test_no_path_is_accepted_without_a_credential(seeds: Seeds, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as problem:
        await seeds.send(path, b"", ())
    assert problem.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_none_of_them_left_anything_behind(seeds: Seeds) -> None:
    data = await seeds.send(RUN + "ListRuns", b"", bearer("ada"))
    assert len(run_request_pb2.ListRunsResponse.FromString(data).runs) == 2
    data = await seeds.send(AGENT + "ListAgents", b"", bearer("ada"))
    listed = agent_service_pb2.ListAgentsResponse.FromString(data).agents
    assert [agent.name for agent in listed] == ["hello"]
