"""A server inside this process, for commands that bring their own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from onbelay_server.cli.connection import Connection
from onbelay_server.cli.outcome import CommandFailed, ExitCode
from onbelay_server.cli.serving import checked_settings
from onbelay_server.config import Settings

if TYPE_CHECKING:
    from onbelay_server.wiring import Serving

START_SECONDS = 60.0
# An embedded server answers at once or not at all.
PATIENCE_SECONDS = 10.0


class EmbeddedServer:
    """Serves in a thread of its own from `__enter__` to `__exit__`, which drains it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready: Future[Serving] = Future()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="embedded-server", daemon=True)

    def __enter__(self) -> Serving:
        """Where it serves, once it does; what hinders it is raised here."""
        self._thread.start()
        try:
            return self._ready.result(START_SECONDS)
        except TimeoutError:
            raise CommandFailed(
                "the embedded server did not start in time", ExitCode.UNAVAILABLE
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(self._settings.drain_seconds + 15)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            # It belongs to whoever waits for the server, not to this thread.
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        # The whole server: commands that only call one must not pay for its import.
        from onbelay_server.telemetry import configure_logging
        from onbelay_server.wiring import running

        configure_logging(self._settings.log_level, as_json=self._settings.log_json)
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with running(self._settings) as serving:
            self._ready.set_result(serving)
            await self._stop.wait()


def private_settings(state_dir: Path, agents: list[str]) -> Settings:
    """Settings of a server for this process alone, whatever the environment says."""
    return checked_settings(
        listen="127.0.0.1:0",
        http=None,
        state_dir=state_dir,
        database=f"sqlite:///{state_dir / 'onbelay.db'}",
        agents=agents,
        tokens_file=None,
        tls_cert=None,
        tls_key=None,
        insecure=False,
        drain_seconds=2,
        retention_days=None,
        log_level="WARNING",
    )


def connected(serving: Serving, *, as_json: bool = False) -> Connection:
    """A connection to an embedded server as its developer."""
    return Connection(
        f"grpc://{serving.grpc_address}",
        serving.token or "",
        as_json=as_json,
        patience_seconds=PATIENCE_SECONDS,
    )
