"""The HTTP server, in the event loop of the process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


class HttpListenError(Exception):
    """The address cannot be served; the text is one line for the operator."""


class HttpServer:
    """Serves one application on one address, until it is drained."""

    def __init__(self, app: ASGIApp, *, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen and answer; returns the port. Raises HttpListenError when the address is taken or
        not ours."""
        listener = self._bound()
        port: int = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=15,
        )
        server = _Server(config)
        self._server = server
        self._serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.accepting.wait()
        if not server.started:
            await self._serving
        return port

    async def drain(self, grace_seconds: float) -> None:
        """Stop listening and let requests in flight finish within the grace."""
        server, serving = self._server, self._serving
        if server is None or serving is None:
            return
        self._server = self._serving = None
        server.should_exit = True
        try:
            async with asyncio.timeout(grace_seconds):
                await asyncio.shield(serving)
        except TimeoutError:
            server.force_exit = True
            await serving

    def _bound(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            # A taken port is noticed here at the latest, not by a task that nobody awaits.
            listener.listen(128)
        except OSError as problem:
            listener.close()
            raise HttpListenError(
                f"cannot listen on {self._host}:{self._port}: {problem.strerror}"
            ) from None
        return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.accepting.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business, not the HTTP port's."""
        yield
