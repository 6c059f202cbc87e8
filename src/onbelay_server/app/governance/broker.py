"""The broker: the only way from an agent to an effect."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from onbelay_server.domain.agent import AgentRevision
from onbelay_server.domain.state import Risk
from onbelay_server.ports.tools import ToolError, Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A call that may be sent: which tool, with which exact bytes, under which key."""

    tool: str
    risk: Risk
    arguments_json: str
    arguments_sha256: str
    idempotency_key: str
    may_repeat: bool
    """Whether it may be sent again when it is unknown whether it arrived."""
    timeout_seconds: float | None = None
    """How long its agent wants to wait; None: as long as the limit allows."""


class Broker:
    """Checks what an agent asks for and sends it."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def permit(
        self,
        revision: AgentRevision,
        run_id: str,
        step_id: str,
        tool: str,
        arguments_json: str,
        *,
        timeout_seconds: float | None = None,
    ) -> Permit:
        """Whether this agent may call this tool. Raises ToolError of type ToolDenied if not."""
        known = self._tools.get(tool)
        if known is None or tool not in revision.allowed_tools:
            raise ToolError("ToolDenied", f"the tool {tool!r} is not among those of this agent")
        if known.risk.rank > revision.highest_risk.rank:
            raise ToolError(
                "ToolDenied",
                f"{tool!r} is of risk {known.risk}, above this agent's {revision.highest_risk}",
            )
        return Permit(
            tool=tool,
            risk=known.risk,
            arguments_json=arguments_json,
            arguments_sha256=hashlib.sha256(arguments_json.encode()).hexdigest(),
            idempotency_key=hashlib.sha256(f"{run_id}\n{step_id}".encode()).hexdigest(),
            may_repeat=known.is_idempotent or known.risk.rank <= Risk.COMPUTE.rank,
            timeout_seconds=timeout_seconds,
        )

    async def send(self, permit: Permit) -> str:
        """Send exactly the permitted bytes; the result as JSON. Raises ToolError."""
        return await self._tools.call(
            permit.tool, permit.arguments_json, idempotency_key=permit.idempotency_key
        )
