"""What the author of an agent imports.

from onbelay_agent import agent, Context

@agent
async def hello(ctx: Context, name: str) -> str:
    return f"Hello {name}"
"""

from __future__ import annotations

from onbelay_agent.artifacts import Artifact, Artifacts
from onbelay_agent.context import Approved, Context, RunInfo
from onbelay_agent.definition import AgentDefinition, agent
from onbelay_agent.elsewhere import ChildRun, Message, Operation
from onbelay_agent.errors import (
    AgentCallError,
    AgentNotLoaded,
    ArtifactFailed,
    ChildRunFailed,
    Expired,
    InvalidAnswer,
    InvalidDefinition,
    InvalidInput,
    OperationFailed,
    RefusedCall,
    Rejected,
    RunStopped,
    RunSuspended,
    StepFailed,
    ToolDenied,
    ToolFailed,
    ValueNotStorable,
)
from onbelay_agent.limits import Limits
from onbelay_agent.tool import Risk, ToolDefinition, tool
from onbelay_agent.work import Retries

__all__ = [
    "AgentCallError",
    "AgentDefinition",
    "AgentNotLoaded",
    "Approved",
    "Artifact",
    "ArtifactFailed",
    "Artifacts",
    "ChildRun",
    "ChildRunFailed",
    "Context",
    "Expired",
    "InvalidAnswer",
    "InvalidDefinition",
    "InvalidInput",
    "Limits",
    "Message",
    "Operation",
    "OperationFailed",
    "RefusedCall",
    "Rejected",
    "Retries",
    "Risk",
    "RunInfo",
    "RunStopped",
    "RunSuspended",
    "StepFailed",
    "ToolDefinition",
    "ToolDenied",
    "ToolFailed",
    "ValueNotStorable",
    "agent",
    "tool",
]
