"""Answers to clients that may leave at any moment: then the generation ends at once, even before its first token."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client left before its answer was whole."""


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T], left: Callable[[], None]) -> T:
    """The result of `work`, which is cancelled as soon as the client leaves. Raises ClientGoneError, and what `work`
    raises."""
    return await _race(request.receive, work, left)


class EventStream(Response):
    """Server-sent events, each sent as soon as it is there.

    Not Starlette's StreamingResponse: where the server speaks a newer ASGI, that one notices a client that left only
    when it writes, and a question may wait in the queue or read a long prompt for minutes before it writes.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], left: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._left = events, left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        with suppress(ClientGoneError):
            await _race(receive, self._send(send), self._left)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self._events:
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        finally:
            # The turn and the engine's connection are given back here and now, not when the garbage is collected.
            await self._events.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _race(receive: Receive, work: Coroutine[Any, Any, T], left: Callable[[], None]) -> T:
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_until_left(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        left()
        raise ClientGoneError
    finally:
        for each in (watch, task):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
