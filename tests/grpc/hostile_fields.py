"""Hostile calls whose fields are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from onbelay.v1 import agent_pb2, run_filter_pb2
from onbelay.v1 import agent_service_pb2 as agents
from onbelay.v1 import approval_request_pb2 as approvals
from onbelay.v1 import artifact_request_pb2 as artifacts
from onbelay.v1 import run_request_pb2 as runs
from onbelay.v1 import watch_request_pb2 as watches
from tests.grpc.edge_server import AGENT, RUN, bearer
from tests.grpc.hostile_call import APPROVE, UNKNOWN, Code, Hostile, bad, start
from tests.grpc.hostile_server import Seeds


def wrong_fields() -> Iterator[Hostile]:
    """This part of the table."""
    yield from _bad_starts()
    yield from _bad_inputs()
    yield from _bad_fields()
    yield from _bad_agents()


def struct(**fields: Any) -> Struct:
    found = Struct()
    found.update(fields)
    return found


def _bad_starts() -> Iterator[Hostile]:
    many = {f"k{number}": "v" for number in range(10_000)}
    table: list[tuple[str, Message, str]] = [
        ("nothing at all", runs.StartRunRequest(), "request_id"),
        ("no agent", runs.StartRunRequest(request_id="r"), "agent"),
        ("a request_id too long", start(request_id="r" * 129), "request_id"),
        ("a request_id with a newline", start(request_id="r\n"), "request_id"),
        ("an agent with a space", start(agent="a b"), "agent"),
        ("an agent of 1 MB", start(agent="a" * 1_000_000), "agent"),
        ("revision zero", start(agent_revision=0), "agent_revision"),
        ("10,000 labels", start(labels=many), "labels"),
        ("a label key with a space", start(labels={"a b": "c"}), "labels"),
        ("an empty label key", start(labels={"": "c"}), "labels"),
        ("a label with an escape", start(labels={"a": "\x1b[2J"}), "labels"),
        ("a label too long", start(labels={"a": "c" * 257}), "labels"),
        ("a title with a newline", start(title="a\nb"), "title"),
        ("a title too long", start(title="a" * 201), "title"),
        ("a title with a zero", start(title="a\0b"), "title"),
        ("a line separator in a session id", start(session_id="a\u2028b"), "session_id"),
        ("an unknown session policy", start(session_policy=UNKNOWN), "session_policy"),
        ("a start before 1970", start(not_before=Timestamp(seconds=-1)), "not_before"),
        ("a start in the year 10000", start(not_before=Timestamp(seconds=2**40)), "not_before"),
        ("a path as artifact id", start(input_artifacts={"a": "../etc"}), "input_artifacts"),
        ("an artifact without a name", start(input_artifacts={"": "art_1"}), "input_artifacts"),
        ("a rerun of a path", start(rerun_of="/etc/passwd"), "rerun_of"),
    ]
    for name, request, field in table:
        yield bad(name, "StartRun", request, field)


def _bad_inputs() -> Iterator[Hostile]:
    texts = {
        "an empty text": "",
        "half an object": '{"a":',
        "two values": "{} {}",
        "a byte order mark": "\ufeff{}",
        "a key twice": '{"a":1,"a":2}',
        "NaN": '{"a":NaN}',
        "an infinity in disguise": '{"a":1e400}',
        "100,000 brackets": "[" * 100_000,
        "an object 65 deep": '{"a":' * 65 + "1" + "}" * 65,
        "an integer of 5,000 digits": '{"a":' + "9" * 5000 + "}",
        "half a surrogate pair": '{"a":"\\ud800"}',
    }
    for name, text in texts.items():
        yield bad(name, "StartRun", start(input_json=text), "input_json", "INVALID_JSON")
    yield bad(
        "an input of 1 MB and a byte",
        "StartRun",
        start(input_json='"' + "a" * 2**20 + '"'),
        "input_json",
    )
    lists = struct()
    lists.fields["a"].list_value.CopyFrom(ListValue(values=[Value(number_value=float("nan"))]))
    yield bad("NaN in a Struct", "StartRun", start(input=lists), "input")
    yield bad("2^53 in a Struct", "StartRun", start(input=struct(n=2.0**53)), "input")
    yield bad(
        "an input of another shape",
        "StartRun",
        start(input_json='{"n":"three"}'),
        "input",
        "INPUT_MISMATCH",
    )


def _bad_fields() -> Iterator[Hostile]:
    flt = run_filter_pb2.RunFilter

    def watch(**fields: Any) -> Callable[[Seeds], Message]:
        return lambda seeds: watches.WatchRunRequest(run_id=seeds.run, **fields)

    def wait(seconds: int) -> Callable[[Seeds], Message]:
        return lambda seeds: runs.WaitRunRequest(
            run_id=seeds.run, timeout=Duration(seconds=seconds)
        )

    yield bad("an empty run id", "GetRun", runs.GetRunRequest(), "run_id")
    yield bad("a run id with a path", "GetRun", runs.GetRunRequest(run_id="../x"), "run_id")
    yield bad("a run id too long", "StopRun", runs.StopRunRequest(run_id="r" * 129), "run_id")
    yield bad(
        "a reason too long",
        "StopRun",
        lambda seeds: runs.StopRunRequest(run_id=seeds.run, reason="x" * 4001),
        "reason",
    )
    yield bad("a wait of -5 s", "WaitRun", wait(-5), "timeout")
    yield bad("a wait of 51 s", "WaitRun", wait(51), "timeout")
    yield bad("a wait of 2^62 s", "WaitRun", wait(2**62), "timeout")
    yield bad(
        "an unknown until", "WaitRun", runs.WaitRunRequest(run_id="r", until=UNKNOWN), "until"
    )
    yield bad(
        "a heartbeat of no time", "WatchRun", watch(heartbeat_interval=Duration()), "heartbeat"
    )
    yield bad("an unknown kind", "WatchRun", watch(kinds=[9999]), "kinds")
    yield bad("kinds and the opposite", "WatchRun", watch(kinds=[10], except_kinds=[10]), "kinds")
    yield bad("the last billion", "WatchRun", watch(last_events=10**9), "last_events")
    yield bad(
        "an unknown state",
        "ListRuns",
        runs.ListRunsRequest(filter=flt(states=[UNKNOWN])),
        "filter",
    )
    yield bad("an unknown view", "ListRuns", runs.ListRunsRequest(view=UNKNOWN), "view")
    yield bad("everything stopped by accident", "StopRuns", runs.StopRunsRequest(), "filter")
    yield bad("no mask", "UpdateRun", runs.UpdateRunRequest(run_id="r"), "update_mask")
    for name, token in (("nonsense", "nonsense"), ("a forged token", "AAAA" * 12)):
        yield bad(
            f"{name} as page token",
            "ListRuns",
            runs.ListRunsRequest(page_token=token),
            "page_token",
            "PAGE_TOKEN_INVALID",
        )
    yield bad(
        "a page token of another query",
        "ListRuns",
        lambda seeds: runs.ListRunsRequest(
            page_token=seeds.page_token, filter=flt(session_id="other")
        ),
        "page_token",
        "PAGE_TOKEN_INVALID",
    )
    yield Hostile(
        "a page token of another tenant",
        RUN + "ListRuns",
        lambda seeds: runs.ListRunsRequest(page_token=seeds.page_token),
        Code.INVALID_ARGUMENT,
        "PAGE_TOKEN_INVALID",
        "page_token",
        bearer("other"),
    )
    decide = approvals.DecideApprovalRequest
    yield bad("no decision", "DecideApproval", decide(approval_id="a"), "decision")
    yield bad(
        "an unknown decision",
        "DecideApproval",
        decide(approval_id="a", decision=UNKNOWN),
        "decision",
    )
    yield bad(
        "approving unseen",
        "DecideApproval",
        decide(approval_id="a", decision=APPROVE),
        "body_sha256",
    )
    yield bad(
        "a hash of another length",
        "DecideApproval",
        decide(approval_id="a", decision=APPROVE, body_sha256="ab"),
        "body_sha256",
    )
    put = artifacts.PutArtifactRequest
    yield bad("an upload without id", "PutArtifact", put(name="a"), "upload_id")
    yield bad("a name that climbs", "PutArtifact", put(upload_id="u", name="../a"), "name")
    yield bad("an absolute name", "PutArtifact", put(upload_id="u", name="/etc/a"), "name")
    yield bad(
        "a chunk over 1 MB",
        "PutArtifact",
        put(upload_id="u", name="a", content=b"x" * (2**20 + 1)),
        "content",
    )


def _bad_agents() -> Iterator[Hostile]:
    def create(**fields: Any) -> Message:
        wanted = {"name": "mine", "blueprint": "hello", **fields}
        return agents.CreateAgentRequest(agent=agent_pb2.Agent(**wanted))

    path = AGENT + "CreateAgent"
    yield bad("an agent of nothing", path, agents.CreateAgentRequest(), "agent")
    yield bad("an agent named in capitals", path, create(name="Mine"), "agent.name")
    yield bad("an agent named by a twin", path, create(name="mіne"), "agent.name")
    for key in ("LD_PRELOAD", "PATH", "PYTHONPATH"):
        yield bad(f"{key} in the environment", path, create(env={key: "x"}), "agent.env")
    yield bad("an assignment as key", path, create(env={"A=B": "x"}), "agent.env")
    yield bad("a risk of 99", path, create(allowed_risk_max=99), "agent.allowed_risk_max")
    yield bad(
        "an update of nothing",
        AGENT + "UpdateAgent",
        agents.UpdateAgentRequest(agent=agent_pb2.Agent(name="hello")),
        "update_mask",
    )
    yield bad(
        "a mask of no field",
        AGENT + "UpdateAgent",
        agents.UpdateAgentRequest(
            agent=agent_pb2.Agent(name="hello"),
            update_mask=FieldMask(paths=["A__b"]),
            request_id="r",
        ),
        "update_mask",
    )
