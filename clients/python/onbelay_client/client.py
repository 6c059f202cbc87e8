"""The client: one channel, one credential, the services by noun."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from onbelay.v1.access_service_pb2_grpc import AccessServiceStub
from onbelay_client import contract as pb
from onbelay_client.agents import Agents
from onbelay_client.approvals import Approvals
from onbelay_client.artifacts import Artifacts
from onbelay_client.calling import Caller
from onbelay_client.channel import open_channel
from onbelay_client.operations import Operations
from onbelay_client.runs import Runs


class Client:
    """A connection to one server as one principal. Threads may share it; close it at the end.

    Every call raises a kind of OnbelayError, and repeats by itself what is harmless to repeat.
    """

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._channel = channel
        self._access = AccessServiceStub(channel)
        self._caller = caller
        self.runs = Runs(channel, caller)
        self.approvals = Approvals(channel, caller)
        self.operations = Operations(channel, caller)
        self.artifacts = Artifacts(channel, caller)
        self.agents = Agents(channel, caller)

    def caller(self) -> pb.GetCallerResponse:
        """Who the server takes this client for, what it may do, and which server it is."""
        return self._caller.call(self._access.GetCaller, pb.GetCallerRequest())

    def close(self) -> None:
        """Give up the channel; calls in flight end Cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def connect(
    server: str = "127.0.0.1:50051",
    api_key: str = "",
    *,
    ca_cert: Path | str | None = None,
    deadline_seconds: float = 30.0,
    patience_seconds: float = 30.0,
) -> Client:
    """A client of the server at `host:port`, `grpc://host:port` or `grpcs://host:port`.

    Other machines are spoken to with TLS unless the address says `grpc://` (see `open_channel`).
    `deadline_seconds` is how long one call may take with its repetitions, `patience_seconds` how
    long a server that is away is called again. Nothing is sent before the first call.
    """
    channel = open_channel(server, ca_cert=ca_cert)
    return Client(
        channel,
        Caller(
            api_key=api_key, deadline_seconds=deadline_seconds, patience_seconds=patience_seconds
        ),
    )
