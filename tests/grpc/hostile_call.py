"""One hostile call, and the short forms the tables are written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from onbelay.v1 import run_request_pb2 as runs
from tests.grpc.edge_server import RUN, bearer
from tests.grpc.hostile_server import Seeds

Code = grpc.StatusCode
ADA = bearer("ada")
UNKNOWN: Any = 99
"""A number that no enum has."""
APPROVE: Any = 1
Asked = Message | bytes | Callable[[Seeds], Message]


@dataclass(frozen=True)
class Hostile:
    """One call and what it must get."""

    name: str
    path: str
    request: Asked
    code: grpc.StatusCode
    reason: str
    field: str = ""
    """The first part of a field that BadRequest must name; empty for none."""
    metadata: Any = ADA

    def data(self, seeds: Seeds) -> bytes:
        asked = self.request(seeds) if callable(self.request) else self.request
        return asked if isinstance(asked, bytes) else asked.SerializeToString()


def bad(
    name: str, method: str, request: Asked, field: str, reason: str = "INVALID_FIELD"
) -> Hostile:
    """A call that is INVALID_ARGUMENT."""
    path = method if method.startswith("/") else RUN + method
    return Hostile(name, path, request, Code.INVALID_ARGUMENT, reason, field)


def start(**fields: Any) -> runs.StartRunRequest:
    """A start that is right but for what is given."""
    return runs.StartRunRequest(**{"request_id": "r", "agent": "hello", **fields})
