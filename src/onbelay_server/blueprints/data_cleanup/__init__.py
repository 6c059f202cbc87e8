"""The blueprint data-cleanup: which rows of a messy table are the same entity.

`data_cleanup` is the agent, `BLUEPRINT` what the service lists. The agent is loaded on first use,
so that listing the blueprint needs none of the data libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onbelay_server.blueprints.data_cleanup.blueprint import BLUEPRINT

if TYPE_CHECKING:
    from onbelay_server.blueprints.data_cleanup.agent import data_cleanup

__all__ = ["BLUEPRINT", "data_cleanup"]


def __getattr__(name: str) -> Any:
    if name == "data_cleanup":
        from onbelay_server.blueprints.data_cleanup.agent import data_cleanup

        return data_cleanup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
