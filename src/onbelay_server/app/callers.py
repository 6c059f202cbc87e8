"""What a caller may know about itself and the server."""

from __future__ import annotations

from dataclasses import dataclass

from onbelay_server.domain.principal import Principal
from onbelay_server.ports.clock import Clock
from onbelay_server.ports.credentials import Credential


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerLimits:
    """The limits that hold for every caller of this server. 0 means no limit."""

    max_request_bytes: int
    max_input_bytes: int
    max_artifact_bytes: int
    max_streams: int
    max_active_runs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """The answer to "who am I, and who are you"."""

    principal: Principal
    credential: Credential | None
    limits: CallerLimits
    server_version: str
    now_us: int


class Callers:
    """Introduces callers to the server."""

    def __init__(self, *, clock: Clock, server_version: str, limits: CallerLimits) -> None:
        self._clock = clock
        self._server_version = server_version
        self._limits = limits

    def get_caller(self, principal: Principal, credential: Credential | None) -> Introduction:
        """What this caller may do here, and for how long."""
        return Introduction(
            principal=principal,
            credential=credential,
            limits=self._limits,
            server_version=self._server_version,
            now_us=self._clock.now_us(),
        )
