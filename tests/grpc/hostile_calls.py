"""A hundred hostile calls, each with the code, reason and field that the contract says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from onbelay.v1 import agent_service_pb2 as agents
from onbelay.v1 import approval_request_pb2 as approvals
from onbelay.v1 import artifact_request_pb2 as artifacts
from onbelay.v1 import run_request_pb2 as runs
from onbelay.v1 import watch_request_pb2 as watches
from tests.grpc.edge_server import ACCESS, AGENT, BROKER, RUN, bearer
from tests.grpc.hostile_call import Asked, Code, Hostile, bad, start
from tests.grpc.hostile_fields import wrong_fields
from tests.grpc.hostile_server import Seeds


def _nested(depth: int) -> bytes:
    """A StartRun whose input is nested so deep that no decoder should follow."""
    data = Value(bool_value=True).SerializeToString()
    for _ in range(depth):
        size = _varint(len(data))
        data = b"\x0a" + size + data  # ListValue.values
        data = b"\x32" + _varint(len(data)) + data  # Value.list_value
    entry = b"\x0a\x01a\x12" + _varint(len(data)) + data
    fields = b"\x0a" + _varint(len(entry)) + entry
    return b"\x0a\x01r\x12\x05hello\x22" + _varint(len(fields)) + fields


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def hostile_calls() -> Iterator[Hostile]:
    """The table."""
    yield from _without_credential()
    yield from _without_right()
    yield from _malformed()
    yield from wrong_fields()
    yield from _unknown()


def _without_credential() -> Iterator[Hostile]:
    missing: list[tuple[str, Any]] = [
        ("no metadata", ()),
        ("an empty credential", (("authorization", ""),)),
        ("a scheme alone", (("authorization", "Bearer"),)),
        ("another scheme", (("authorization", "Basic YTph"),)),
        ("two credentials", (*bearer("ada"), *bearer("ada"))),
        ("a bad and a good credential", (*bearer("bad"), *bearer("ada"))),
        ("a credential of 3 kB", bearer("x" * 3000)),
    ]
    for name, metadata in missing:
        yield Hostile(
            name,
            RUN + "GetRun",
            runs.GetRunRequest(run_id="run_1"),
            Code.UNAUTHENTICATED,
            "CREDENTIAL_MISSING",
            metadata=metadata,
        )
    for path in (
        RUN + "StartRun",
        RUN + "WatchRun",
        AGENT + "ListAgents",
        ACCESS + "GetCaller",
        BROKER + "CallTool",
        "/no.Such/Method",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ):
        yield Hostile(
            f"an unknown token on {path}",
            path,
            b"",
            Code.UNAUTHENTICATED,
            "CREDENTIAL_INVALID",
            metadata=bearer("nobody"),
        )


def _without_right() -> Iterator[Hostile]:
    for path in (
        RUN + "StartRun",
        RUN + "StopRun",
        RUN + "DecideApproval",
        RUN + "PutArtifact",
        AGENT + "CreateAgent",
        AGENT + "DeleteAgent",
        ACCESS + "CreateApiKey",
    ):
        yield Hostile(
            f"a viewer on {path}",
            path,
            b"",
            Code.PERMISSION_DENIED,
            "SCOPE_MISSING",
            metadata=bearer("viewer"),
        )
    yield Hostile("no such service", "/no.Such/Method", b"", Code.UNIMPLEMENTED, "METHOD_UNKNOWN")
    yield Hostile("no such method", RUN + "Explode", b"", Code.UNIMPLEMENTED, "METHOD_UNKNOWN")
    yield Hostile("an empty path", "/", b"", Code.UNIMPLEMENTED, "METHOD_UNKNOWN")
    yield Hostile(
        "a method of later", ACCESS + "CreateApiKey", b"", Code.UNIMPLEMENTED, "RPC_NOT_BUILT"
    )


def _malformed() -> Iterator[Hostile]:
    table = {
        "random bytes": b"\xde\xad\xbe\xef" * 8,
        "a cut message": b"\x0a\x20abc",
        "broken UTF-8": b"\x0a\x02\xff\xfe",
        "a wrong wire type": b"\x0d\x01",
        "a group without an end": b"\x0b\x0b\x0b",
        "a varint without an end": b"\x08" + b"\xff" * 20,
        "a length past the end": b"\x0a\xff\xff\xff\xff\x0f",
        "field number zero": b"\x02\x01a",
    }
    for name, data in table.items():
        for method in ("GetRun", "WatchRun"):
            yield bad(f"{name} on {method}", method, data, "", "MALFORMED_REQUEST")
    yield bad("input nested 400 deep", "StartRun", _nested(400), "", "MALFORMED_REQUEST")


def _of_ada(make: Callable[[str], Message]) -> Callable[[Seeds], Message]:
    return lambda seeds: make(seeds.run)


def _of_rival(make: Callable[[str], Message]) -> Callable[[Seeds], Message]:
    return lambda seeds: make(seeds.rivals_run)


def _unknown() -> Iterator[Hostile]:
    def missing(name: str, method: str, request: Asked, token: str = "ada") -> Hostile:
        path = method if method.startswith("/") else RUN + method
        return Hostile(name, path, request, Code.NOT_FOUND, "NOT_FOUND", "", bearer(token))

    none = "run_00000000000000000000000000"
    yield missing("a run that never was", "GetRun", runs.GetRunRequest(run_id=none))
    yield missing("watching nothing", "WatchRun", watches.WatchRunRequest(run_id=none))
    yield missing("waiting for nothing", "WaitRun", runs.WaitRunRequest(run_id=none))
    yield missing("stopping nothing", "StopRun", runs.StopRunRequest(run_id=none))
    yield missing("deleting nothing", "DeleteRun", runs.DeleteRunRequest(run_id=none))
    yield missing("an agent that never was", "StartRun", start(agent="nobody"))
    yield missing("a rerun of nothing", "StartRun", start(agent="", rerun_of=none))
    requests: list[tuple[str, Callable[[str], Message]]] = [
        ("GetRun", lambda run: runs.GetRunRequest(run_id=run)),
        ("WatchRun", lambda run: watches.WatchRunRequest(run_id=run)),
        ("StopRun", lambda run: runs.StopRunRequest(run_id=run)),
        ("ListRunEvents", lambda run: watches.ListRunEventsRequest(run_id=run)),
        ("ListArtifacts", lambda run: artifacts.ListArtifactsRequest(run_id=run)),
    ]
    for method, make in requests:
        yield missing(f"{method} of another tenant's run", method, _of_rival(make))
        yield missing(f"{method} by another tenant", method, _of_ada(make), "other")
        if method != "StopRun":
            yield missing(f"{method} by another person", method, _of_ada(make), "viewer")
    yield missing(
        "an approval that never was",
        "GetApproval",
        approvals.GetApprovalRequest(approval_id="apr_1"),
    )
    yield missing(
        "an artifact that never was",
        "GetArtifact",
        artifacts.GetArtifactRequest(artifact_id="art_1"),
    )
    yield missing("an unknown agent", AGENT + "GetAgent", agents.GetAgentRequest(agent="nobody"))
    yield Hostile(
        "a position ahead of the log",
        RUN + "WatchRun",
        lambda seeds: watches.WatchRunRequest(run_id=seeds.run, after_sequence=4_000_000),
        Code.OUT_OF_RANGE,
        "POSITION_OUT_OF_RANGE",
    )
    yield Hostile(
        "a request_id for another request",
        RUN + "StartRun",
        runs.StartRunRequest(request_id="first", agent="hello", input_json='{"n":1}'),
        Code.INVALID_ARGUMENT,
        "REQUEST_ID_REUSED",
    )
    yield Hostile(
        "5 MB",
        RUN + "StartRun",
        start(input_json="x").SerializeToString() + b"\xfa\x7f\x80\x96\xb1\x02" + b"x" * 5_000_000,
        Code.RESOURCE_EXHAUSTED,
        "PAYLOAD_TOO_LARGE",
    )
