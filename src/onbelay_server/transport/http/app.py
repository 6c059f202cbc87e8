"""The HTTP application: is the process alive, does it take calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def http_app(*, is_ready: Callable[[], bool], hosts: Sequence[str] = ()) -> Starlette:
    """/healthz answers while the process runs, /readyz while the server takes calls.

    Only requests whose Host is listed (or loopback) are answered: a page of another origin that
    makes its name resolve to this machine gets nothing.
    """

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"state": "alive"})

    async def readyz(_request: Request) -> Response:
        ready = is_ready()
        return JSONResponse(
            {"state": "ready" if ready else "not ready"}, status_code=200 if ready else 503
        )

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz)],
        middleware=[
            Middleware(
                TrustedHostMiddleware,
                allowed_hosts=[*_LOOPBACK_HOSTS, *hosts],
                www_redirect=False,
            )
        ],
    )
