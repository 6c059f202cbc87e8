"""The HTTP port: alive, ready, for listed hosts only, and down when it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from onbelay_server.transport.http.app import http_app
from onbelay_server.transport.http.server import HttpListenError, HttpServer


class Readiness:
    is_ready = True


@asynccontextmanager
async def served(readiness: Readiness) -> AsyncIterator[int]:
    app = http_app(is_ready=lambda: readiness.is_ready, hosts=["onbelay.example"])
    server = HttpServer(app, host="127.0.0.1", port=0)
    try:
        yield await server.start()
    finally:
        await server.drain(1)


async def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_alive_and_ready_are_two_things() -> None:
    readiness = Readiness()
    async with served(readiness) as port:
        assert await get(port, "/healthz") == (200, '{"state":"alive"}')
        assert await get(port, "/readyz") == (200, '{"state":"ready"}')
        readiness.is_ready = False
        assert await get(port, "/healthz") == (200, '{"state":"alive"}')
        assert await get(port, "/readyz") == (503, '{"state":"not ready"}')
        assert (await get(port, "/anything"))[0] == 404


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("onbelay.example", 200),
        ("evil.example", 400),
        ("onbelay.example.evil.example", 400),
        ("", 400),
    ],
)
async def test_only_listed_hosts_are_answered(host: str, code: int) -> None:
    async with served(Readiness()) as port:
        assert (await get(port, "/healthz", host))[0] == code


async def test_a_taken_address_is_told_in_one_line() -> None:
    async with served(Readiness()) as port:
        app = http_app(is_ready=lambda: True)
        with pytest.raises(HttpListenError, match="in use") as problem:
            await HttpServer(app, host="127.0.0.1", port=port).start()
        assert "\n" not in str(problem.value)


async def test_after_a_drain_nobody_answers() -> None:
    async with served(Readiness()) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
