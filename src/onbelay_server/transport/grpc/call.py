"""What a handler may know of the call it answers."""

from __future__ import annotations

from dataclasses import dataclass

from onbelay_server.domain.principal import Principal
from onbelay_server.ports.credentials import Credential


@dataclass(frozen=True, slots=True)
class Call:
    """One call, after its credential was accepted."""

    caller: Principal
    method: str
    """Its path, as `/onbelay.v1.RunService/StartRun`."""
    credential: Credential | None = None
    """How the caller proved who it is, for those who tell it about itself."""
