"""The outside world of crash tests: a service in a process of its own that counts what reaches it.

One JSON object a line each way. `{"do": "charge", "key": …}` makes an effect happen and answers
`{"value": …}`; with an `"idempotency_key"` the same key happens once. `{"asked": key}` answers how
often it happened, `{"report": true}` gives everything.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(slots=True)
class Effects:
    """What happened outside, by key; a key is `run/place`."""

    counts: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, str] = field(default_factory=dict)
    last_at: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of the last time each happened."""
    keys: dict[str, set[str]] = field(default_factory=dict)
    """The idempotency keys each came with."""

    def of_run(self, run_id: str) -> list[str]:
        return [key for key in self.counts if key.startswith(f"{run_id}/")]


class _Service:
    def __init__(self) -> None:
        self._effects = Effects()
        self._done: set[str] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._take(json.loads(line))).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, json.JSONDecodeError):
            pass  # whoever asked was killed
        finally:
            writer.close()

    async def _take(self, said: dict[str, Any]) -> dict[str, Any]:
        effects = self._effects
        if "asked" in said:
            return {"count": effects.counts[said["asked"]]}
        if "report" in said:
            return {
                "counts": effects.counts,
                "kinds": effects.kinds,
                "last_at": effects.last_at,
                "keys": {key: sorted(found) for key, found in effects.keys.items()},
            }
        key = said["key"]
        await asyncio.sleep(said.get("before", 0.0))
        unique = said.get("idempotency_key", "")
        effects.kinds[key] = said["do"]
        effects.keys.setdefault(key, set()).add(unique)
        if not unique or unique not in self._done:
            self._done.add(unique)
            effects.counts[key] += 1
            effects.last_at[key] = time.time()
        await asyncio.sleep(said.get("after", 0.0))
        return {"value": key.rpartition("/")[2]}


async def _serve() -> None:
    server = await asyncio.start_server(_Service().answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The pipe from whoever started it ends with them, however they end.
    await asyncio.to_thread(sys.stdin.buffer.read)
    os._exit(0)


@dataclass(slots=True)
class EffectService:
    """The running service, as a test sees it."""

    address: str

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        host, _, port = self.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**24)
        try:
            writer.write(json.dumps(question).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()

    async def count(self, key: str) -> int:
        """How often this happened."""
        return int((await self.ask({"asked": key}))["count"])

    async def effects(self) -> Effects:
        """Everything that happened."""
        found = await self.ask({"report": True})
        keys = {key: set(unique) for key, unique in found["keys"].items()}
        return Effects(Counter(found["counts"]), found["kinds"], found["last_at"], keys)


@asynccontextmanager
async def effect_service() -> AsyncIterator[EffectService]:
    """The service, for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.effect_service",
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        port = int(await process.stdout.readline())
        yield EffectService(f"127.0.0.1:{port}")
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
