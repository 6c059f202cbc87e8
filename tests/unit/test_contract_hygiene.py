"""What holds for every file of the wire contract."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import protovalidate
import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message_factory import GetMessageClass

from onbelay.v1.error_reason_pb2 import ErrorReason
from tests.requirement import find_program, require

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "proto" / "onbelay" / "v1").glob("*.proto"))
FILES: list[FileDescriptor] = [
    importlib.import_module(f"onbelay.v1.{path.stem}_pb2").DESCRIPTOR for path in PROTOS
]
SERVICES = [service for file in FILES for service in file.services_by_name.values()]
METHODS = [method for service in SERVICES for method in service.methods]
MESSAGES = [message for file in FILES for message in file.message_types_by_name.values()]
ENUMS = [enum for file in FILES for enum in file.enum_types_by_name.values()]

RPCS = {
    "RunService": """StartRun GetRun ListRuns UpdateRun DeleteRun StopRun StopRuns PauseRun
        ResumeRun SendMessage WaitRun WatchRun WatchRuns ListRunEvents ListApprovals GetApproval
        DecideApproval ReviseApproval UndoApproval CompleteOperation GetOperation ListOperations
        PutArtifact ListArtifacts GetArtifact VerifyAudit ExportAudit""",
    "AgentService": """CreateAgent GetAgent ListAgents UpdateAgent DeleteAgent ListAgentRevisions
        ValidateAgent ExportAgent ImportAgent ListBlueprints ForkBlueprint ListTools""",
    "AccessService": "GetCaller CreateApiKey ListApiKeys RotateApiKey RevokeApiKey",
    "BrokerService": """GetRunContext BeginStep FinishStep WaitStep CallTool CallModel AskQuestion
        RequestApproval StartChildRun ReceiveMessages AppendEvents ReportUsage SaveArtifact
        FinishRun""",
}


def _enum_id(enum: EnumDescriptor) -> str:
    return str(enum.name)


def _fields() -> Iterator[FieldDescriptor]:
    for message in MESSAGES:
        yield from message.fields


def test_the_services_have_the_rpcs_of_the_contract() -> None:
    found = {service.name: {method.name for method in service.methods} for service in SERVICES}
    assert found == {name: set(text.split()) for name, text in RPCS.items()}


def test_every_rpc_has_a_request_and_a_response_of_its_own() -> None:
    for method in METHODS:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"


def test_no_rpc_takes_a_stream() -> None:
    assert not [method.name for method in METHODS if method.client_streaming]


def test_reads_are_marked_as_such() -> None:
    reads = re.compile(r"(Get|List|Watch|Wait|Verify|Export|Validate)[A-Z]")
    for method in METHODS:
        level = method.GetOptions().idempotency_level
        marked = level == MethodOptions.NO_SIDE_EFFECTS
        assert marked == bool(reads.match(method.name)), method.name


@pytest.mark.parametrize("enum", ENUMS, ids=_enum_id)
def test_an_enum_begins_with_unspecified_and_carries_its_prefix(enum: EnumDescriptor) -> None:
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
    assert enum.values_by_number[0].name == prefix + "UNSPECIFIED"
    assert all(value.name.startswith(prefix) for value in enum.values)


def test_sequences_epochs_and_counts_are_uint32() -> None:
    counted = re.compile(r"(^|_)(sequence|epoch|attempt|revision|stage|complete_through)$")
    for field in _fields():
        if counted.search(field.name) and field.message_type is None:
            assert field.type == FieldDescriptor.TYPE_UINT32, field.full_name


def test_money_is_whole_nano_dollars_with_the_unit_in_the_name() -> None:
    for field in _fields():
        if "cost" in field.name:
            assert field.name.endswith("_nano_usd"), field.full_name
            assert field.type == FieldDescriptor.TYPE_INT64, field.full_name


def test_hashes_and_json_are_text() -> None:
    for field in _fields():
        if field.name.endswith(("sha256", "_json")) and not field.message_type:
            assert field.type == FieldDescriptor.TYPE_STRING, field.full_name


def test_a_page_is_asked_for_and_given_in_one_way() -> None:
    for method in METHODS:
        request = method.input_type.fields_by_name
        response = method.output_type.fields_by_name
        if "page_token" in request or "next_page_token" in response:
            assert {"page_size", "page_token"} <= set(request), method.name
            assert "next_page_token" in response, method.name


def test_every_rule_can_be_evaluated() -> None:
    validator = protovalidate.Validator()
    for message in MESSAGES:
        try:
            validator.validate(GetMessageClass(message)())
        except protovalidate.ValidationError:
            # An empty message may be refused; a rule that cannot be read raises otherwise.
            continue


def test_a_rule_over_a_whole_message_ends_with_the_field_it_is_about() -> None:
    """Such a violation has no field path: the edge takes the field from the rule's id."""
    for path in PROTOS:
        text = path.read_text()
        for block in re.finditer(r"^message (\w+) \{(.*?)^\}", text, re.M | re.S):
            rules = re.findall(r"\(buf\.validate\.message\)\.cel = \{\s*id: \"([^\"]+)\"", block[2])
            for rule in rules:
                field = rule.rsplit(".", 1)[1]
                assert re.search(rf"\b{field} = \d+", block[2]), f"{path.name}: {rule}"


def test_comments_name_only_error_reasons_that_exist() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name}
    for path in PROTOS:
        if not path.name.endswith("_service.proto"):
            continue
        text = re.sub(r"\n\s*// ?", " ", path.read_text())
        for sentence in re.findall(r"Fails with (.*?)(?:\. |\s+rpc )", text):
            words = re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", re.sub(r"\([^)]*\)", "", sentence))
            assert set(words) <= known | {"UNAVAILABLE"}, sentence


@pytest.mark.parametrize(
    "command", [["lint"], ["format", "-d", "--exit-code", "--path", "proto/onbelay"]]
)
def test_buf_finds_nothing(command: list[str]) -> None:
    buf = find_program("buf")
    require("buf", buf)
    assert buf is not None
    result = subprocess.run(
        [buf, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
