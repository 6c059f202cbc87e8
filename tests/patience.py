"""Waiting in tests: for something to happen, or for all that can happen to have happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 5.0


async def until(found: Callable[[], T]) -> T:
    """What `found` returns once it is true. Fails after a few seconds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (value := found()):  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0)
    return value


async def turns(count: int = 100) -> None:
    """Let whatever is ready go on, and what becomes ready by that."""
    for _ in range(count):
        await asyncio.sleep(0)
