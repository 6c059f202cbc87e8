"""Carriers of hints that something was committed."""

from __future__ import annotations

from onbelay_server.adapters.wakeup.local import LocalWakeup

__all__ = ["LocalWakeup"]
