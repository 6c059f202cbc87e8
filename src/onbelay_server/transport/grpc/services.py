"""The services of the contract, each with what answers it here."""

from __future__ import annotations

from collections.abc import Sequence

from onbelay.v1 import agent_service_pb2, broker_service_pb2, run_service_pb2
from onbelay_server.app.callers import Callers
from onbelay_server.transport.grpc.access_calls import ACCESS_SERVICE, AccessCalls
from onbelay_server.transport.grpc.methods import Service


def contract_services(
    *, run_calls: Sequence[object], agent_calls: Sequence[object], callers: Callers
) -> list[Service]:
    """Every service; an RPC that none of the calls answers says RPC_NOT_BUILT."""
    services = [
        Service(run_service_pb2.DESCRIPTOR.services_by_name["RunService"], run_calls),
        Service(agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"], agent_calls),
        Service(broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"]),
    ]
    return [*services, Service(ACCESS_SERVICE, [AccessCalls(callers, services)])]
