"""/healthz, /readyz and /metrics."""

from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str | None]
"""None while all is well, else a sentence."""


class Health:
    """A small HTTP server; `alive` and `ready` are asked at each probe, all of their checks must pass."""

    def __init__(self, alive: Iterable[Check], ready: Iterable[Check]) -> None:
        self._alive, self._ready = tuple(alive), tuple(ready)
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, port: int) -> None:
        """Raises OSError where the port is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port).start()

    async def stop(self) -> None:
        """Ends the server; a probe that is under way gets half a second."""
        if self._runner:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._alive)

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._ready)


def _answer(checks: Iterable[Check]) -> web.Response:
    wrong = [sentence for check in checks if (sentence := check())]
    return web.Response(text="\n".join(wrong) or "ok", status=503 if wrong else 200)


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
