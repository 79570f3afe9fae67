"""What happens to every request around its answer. Pure ASGI: Starlette's own base for middleware would buffer streams
and hide clients that leave.
"""

import time
from collections.abc import Collection
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falcon_trainer.serve.authorization import Guard
from falcon_trainer.serve.draining import Draining
from falcon_trainer.serve.metrics import Metrics

API = "/v1/"
"""What clients ask; beside it are the kubelet's and Prometheus' paths."""


class Measured:
    """Counts and times each request from its first byte to the last of its answer, streams included."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; only `paths` are measured, so that a label never holds what a client made up."""
        path = scope.get("path", "")
        if scope["type"] != "http" or path not in self._paths:
            await self._app(scope, receive, send)
            return
        status, began = 500, time.monotonic()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - began)


class Guarded:
    """Asks for the bearer token below `API`, where there is one; the kubelet and Prometheus have none to send."""

    def __init__(self, app: ASGIApp, guard: Guard | None) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if self._guard and _asks_api(scope):
            header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
            if refusal := self._guard.refusal(header):
                response = JSONResponse(refusal.body(), refusal.status, refusal.headers())
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Drained:
    """Notes when requests come, and once the server is asked to stop ends each connection with its answer, so that a
    client's next request goes to another server.
    """

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if _asks_api(scope):
            self._draining.request()

        async def parting(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining.began:
                headers: list[Any] = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, parting)


def _asks_api(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith(API)
