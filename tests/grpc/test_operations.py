"""Completing and reading operations over the wire: who may, how often, and what it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.struct_pb2 import Value

from onbelay.v1 import (
    access_pb2,
    access_service_pb2,
    access_service_pb2_grpc,
    operation_pb2,
    run_request_pb2,
)
from onbelay.v1 import operation_request_pb2 as pb
from onbelay_server.domain.operation import OperationState
from onbelay_server.domain.state import RunState
from tests.grpc.steering_server import SteeringDesk, steering_desk, token_of
from tests.resources import BEN, RIVAL

Code = grpc.StatusCode
State = operation_pb2.OperationState


@pytest_asyncio.fixture
async def d() -> AsyncIterator[SteeringDesk]:
    async with steering_desk() as found:
        yield found


async def complete(
    d: SteeringDesk, operation_id: str = "op_1", who: str = "ada", **request: Any
) -> operation_pb2.Operation:
    wanted = pb.CompleteOperationRequest(
        operation_id=operation_id, **({"result_json": "7"} | request)
    )
    reply = await d.call(d.runs.CompleteOperation, wanted, who)
    found: operation_pb2.Operation = reply.operation
    return found


async def refused(
    d: SteeringDesk, operation_id: str = "op_1", who: str = "ada", **request: Any
) -> tuple[grpc.StatusCode, str]:
    wanted = pb.CompleteOperationRequest(
        operation_id=operation_id, **({"result_json": "7"} | request)
    )
    found = await d.refused(d.runs.CompleteOperation, wanted, who)
    return found.code, found.reason


# ---- what it changes -----------------------------------------------------------------------------


async def test_a_completion_wakes_the_run_that_waits(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run, is_awaited=True)
    done = await complete(d)
    assert (done.state, done.result_json) == (State.OPERATION_STATE_SUCCEEDED, "7")
    assert (done.completed_by, done.HasField("complete_time")) == ("user:ada", True)
    assert await d.kinds("run_1") == ["operation_completed", "state_changed"]
    after = await d.house.store.run("run_1")
    assert after is not None
    assert after.state is RunState.QUEUED


async def test_a_completion_before_the_wait_is_kept(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.RUNNING)
    await d.put_operation(run)
    await complete(d)
    after = await d.house.store.run("run_1")
    assert after is not None
    assert after.state is RunState.RUNNING
    operation = await d.house.store.operation("op_1")
    assert operation is not None
    assert operation.state is OperationState.SUCCEEDED


async def test_an_error_is_an_outcome(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run, is_awaited=True)
    error = pb.OperationError(message="no paper", reason="PAPER")
    done = await complete(d, result_json=None, error=error)
    assert done.state == State.OPERATION_STATE_FAILED
    assert (done.error.type, done.error.message) == ("OperationFailed", "no paper")
    assert (done.error.reason, done.result_json) == ("PAPER", "")


async def test_a_value_is_kept_as_json(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.RUNNING)
    await d.put_operation(run)
    value = Value()
    value.struct_value.update({"b": [1, None], "a": True})
    assert (await complete(d, result_json=None, result=value)).result_json == (
        '{"a":true,"b":[1,null]}'
    )


async def test_the_same_outcome_again_changes_nothing(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run, is_awaited=True)
    replies = await asyncio.gather(*(complete(d) for _ in range(20)))
    assert all(reply == replies[0] for reply in replies)
    assert (await d.kinds("run_1")).count("operation_completed") == 1


async def test_another_outcome_is_refused(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run)
    await complete(d)
    closed = (Code.FAILED_PRECONDITION, "OPERATION_CLOSED")
    assert await refused(d, result_json="8") == closed
    assert await refused(d, result_json=None, error=pb.OperationError(message="x")) == closed


async def test_after_its_end_nothing_is_taken(d: SteeringDesk) -> None:
    closed = (Code.FAILED_PRECONDITION, "OPERATION_CLOSED")
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run, expires_in_us=1)
    assert await refused(d) == closed
    ended = await d.put_run("run_2", RunState.SUCCEEDED)
    await d.put_operation(ended, "op_2")
    assert await refused(d, "op_2") == closed


async def test_a_request_id_is_good_for_one_body(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run)
    first = await complete(d, request_id="r1")
    assert await complete(d, request_id="r1") == first
    reused = (Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert await refused(d, result_json="8", request_id="r1") == reused


# ---- what is no result ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", '{"a":1,"a":2}', "NaN", "1e999", '"\\ud800"'])
async def test_a_result_that_is_no_json_is_refused(d: SteeringDesk, text: str) -> None:
    await d.put_operation(await d.put_run("run_1"))
    assert await refused(d, result_json=text) == (Code.INVALID_ARGUMENT, "INVALID_JSON")


async def test_a_result_must_fit_its_schema(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run, schema={"type": "string"})
    assert await refused(d) == (Code.INVALID_ARGUMENT, "ANSWER_MISMATCH")
    assert (await complete(d, result_json='"yes"')).result_json == '"yes"'


async def test_a_request_without_an_outcome_is_refused(d: SteeringDesk) -> None:
    await d.put_operation(await d.put_run("run_1"))
    assert await refused(d, result_json=None) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    long = "x" * 262_144
    assert await refused(d, result_json=f'"{long}"') == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    value = Value(string_value=long)
    assert await refused(d, result_json=None, result=value) == (
        Code.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )


# ---- who may -------------------------------------------------------------------------------------


async def test_a_token_completes_its_own_operation(d: SteeringDesk) -> None:
    run = await d.put_run("run_1", RunState.BLOCKED)
    await d.put_operation(run)
    await d.put_operation(run, "op_2")
    assert (await complete(d, who=token_of("op_1"))).completed_by == ""
    invalid = (Code.PERMISSION_DENIED, "OPERATION_TOKEN_INVALID")
    assert await refused(d, "op_2", token_of("op_1")) == invalid
    assert await refused(d, "op_unknown", token_of("op_1")) == invalid
    assert await refused(d, "op_2", token=token_of("op_1")) == invalid
    assert await refused(d, "op_2", token="nonsense") == invalid
    assert (await complete(d, "op_2", token=token_of("op_2"))).completed_by == ""


async def test_a_token_that_was_changed_is_no_credential(d: SteeringDesk) -> None:
    await d.put_operation(await d.put_run("run_1"))
    token = token_of("op_1")
    for forged in (token[:-1] + ("A" if token[-1] != "A" else "B"), token[:40], token + "A"):
        found = await refused(d, who=forged)
        assert found == (Code.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def test_a_token_may_call_nothing_else(d: SteeringDesk) -> None:
    await d.put_operation(await d.put_run("run_1"))
    token = token_of("op_1")
    calls: list[tuple[Any, Any]] = [
        (d.runs.GetOperation, pb.GetOperationRequest(operation_id="op_1")),
        (d.runs.ListOperations, pb.ListOperationsRequest()),
        (d.runs.GetRun, run_request_pb2.GetRunRequest(run_id="run_1")),
        (d.runs.PauseRun, run_request_pb2.PauseRunRequest(run_id="run_1")),
        (d.runs.SendMessage, run_request_pb2.SendMessageRequest(run_id="run_1", text="x")),
    ]
    for method, request in calls:
        found = await d.refused(method, request, token)
        assert (found.code, found.reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
    access = access_service_pb2_grpc.AccessServiceStub(d.access)
    reply = await d.call(access.GetCaller, access_service_pb2.GetCallerRequest(), token)
    assert (reply.caller.principal, list(reply.caller.scopes)) == ("operation:op_1", [])
    assert reply.caller.credential == access_pb2.CREDENTIAL_KIND_OPERATION


async def test_other_tenants_and_other_people_see_nothing(d: SteeringDesk) -> None:
    await d.put_operation(await d.put_run("run_1", starter=BEN))
    foreign = pb.GetOperationRequest(operation_id="op_1")
    unknown = pb.GetOperationRequest(operation_id="op_x")
    for who in ("ada", "rival"):
        hidden = await d.refused(d.runs.GetOperation, foreign, who)
        assert hidden == await d.refused(d.runs.GetOperation, unknown, who)
        assert hidden.code is Code.NOT_FOUND
        assert not (await d.call(d.runs.ListOperations, pb.ListOperationsRequest(), who)).operations
    for who in ("rival", "ada"):
        assert await refused(d, who=who) == (Code.NOT_FOUND, "NOT_FOUND")
        assert await refused(d, who=who, token=token_of("op_x")) == (Code.NOT_FOUND, "NOT_FOUND")
    by_token = await complete(d, token=token_of("op_1"))
    assert by_token.state == State.OPERATION_STATE_SUCCEEDED
    assert (await refused(d, who=token_of("op_1", RIVAL.tenant)))[0] is Code.NOT_FOUND


# ---- reading -------------------------------------------------------------------------------------


async def test_operations_are_listed_newest_first_page_by_page(d: SteeringDesk) -> None:
    one, two = await d.put_run("run_1"), await d.put_run("run_2")
    for number in range(1, 6):
        await d.put_operation(one if number < 5 else two, f"op_{number}")
    await complete(d, "op_2")

    async def ids(**which: Any) -> list[str]:
        request = pb.ListOperationsRequest(page_size=2, **which)
        found: list[str] = []
        while True:
            page = await d.call(d.runs.ListOperations, request)
            assert len(page.operations) <= 2
            assert page.HasField("server_time")
            found += [each.id for each in page.operations]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    assert await ids() == ["op_5", "op_4", "op_3", "op_2", "op_1"]
    assert await ids(run_id="run_2") == ["op_5"]
    assert await ids(run_id="run_1", states=[State.OPERATION_STATE_OPEN]) == [
        "op_4",
        "op_3",
        "op_1",
    ]


async def test_a_reader_sees_everything_but_the_token(d: SteeringDesk) -> None:
    run = await d.put_run("run_1")
    operation = await d.put_operation(run, schema={"type": "string"}, expires_in_us=10**12)
    request = pb.GetOperationRequest(operation_id="op_1")
    found = (await d.call(d.runs.GetOperation, request)).operation
    assert (found.run_id, found.name, found.state) == (
        "run_1",
        "invoice",
        State.OPERATION_STATE_OPEN,
    )
    assert found.result_schema_json == operation.result_schema_json
    assert found.expire_time.ToMicroseconds() == operation.expire_us
    assert token_of("op_1") not in str(found)
    assert operation.token_sha256 not in str(found)
