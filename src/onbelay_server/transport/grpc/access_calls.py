"""AccessService: who the caller is. API keys come later."""

from __future__ import annotations

from collections.abc import Sequence

from onbelay.v1 import access_pb2, access_service_pb2
from onbelay_server.app.callers import Callers, Introduction
from onbelay_server.transport.grpc.call import Call
from onbelay_server.transport.grpc.methods import Service, unbuilt_methods
from onbelay_server.transport.grpc.wire import to_optional_timestamp, to_timestamp

ACCESS_SERVICE = access_service_pb2.DESCRIPTOR.services_by_name["AccessService"]


class AccessCalls:
    """Answers AccessService."""

    def __init__(self, callers: Callers, services: Sequence[Service] = ()) -> None:
        """`services` are the other services of the server: callers are told what they lack."""
        self._callers = callers
        self._unbuilt = unbuilt_methods([*services, Service(ACCESS_SERVICE, [self])])

    async def get_caller(
        self, request: access_service_pb2.GetCallerRequest, call: Call
    ) -> access_service_pb2.GetCallerResponse:
        """Who calls, what it may do, and which server answers."""
        found = self._callers.get_caller(call.caller, call.credential)
        return access_service_pb2.GetCallerResponse(
            caller=_caller(found),
            server=access_pb2.ServerInfo(
                version=found.server_version,
                unbuilt_methods=self._unbuilt,
                server_time=to_timestamp(found.now_us),
            ),
            limits=access_pb2.CallerLimits(
                max_request_bytes=found.limits.max_request_bytes,
                max_input_bytes=found.limits.max_input_bytes,
                max_artifact_bytes=found.limits.max_artifact_bytes,
                max_streams=found.limits.max_streams,
                max_active_runs=found.limits.max_active_runs,
            ),
        )


def _caller(found: Introduction) -> access_pb2.Caller:
    caller = access_pb2.Caller(
        principal=found.principal.id,
        tenant=found.principal.tenant,
        scopes=sorted(found.principal.scopes),
        person=found.principal.is_person,
    )
    credential = found.credential
    if credential is not None:
        caller.roles.extend(credential.roles)
        caller.credential = access_pb2.CredentialKind.Value(f"CREDENTIAL_KIND_{credential.kind}")
        expire_time = to_optional_timestamp(credential.expire_us)
        if expire_time is not None:
            caller.expire_time.CopyFrom(expire_time)
    return caller
