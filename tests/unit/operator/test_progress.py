"""Asking pods for their progress, against real HTTP servers on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from falcon_operator import progress
from falcon_operator.objects import Key, Object
from falcon_operator.progress import LARGEST_ANSWER, ProgressReader
from falcon_trainer.layout import PROGRESS_PORT
from falcon_trainer.progress import PodProgress, Progress
from tests.unit.operator.policy.pods import pod

RUN = Key("ml", "r")
SAID = Progress(stage="train", phase="train", step=3)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def a_pod(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Object]:
    """A pod whose progress is served by `handler`."""
    app = web.Application()
    app.router.add_get("/progress", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/progress"
    monkeypatch.setattr(progress, "address", lambda _: url)
    try:
        yield pod()
    finally:
        await runner.cleanup()


async def asked(found: Object, seconds: float = 5.0) -> tuple[Progress | None, list[Key]]:
    """What is known of the pod after it was asked once, and the runs that were called changed."""
    changed: list[Key] = []
    reader = ProgressReader(changed.append)
    try:
        assert reader.latest(RUN, found) is None, "a look never waits for a pod"
        async with asyncio.timeout(seconds):
            await asyncio.gather(*reader._tasks)
        return reader.latest(RUN, found), changed
    finally:
        await reader.close()


async def test_an_answer_is_kept_and_its_run_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(PodProgress(summary=SAID, ranks=[]).to_wire())

    async with a_pod(answer, monkeypatch) as found:
        assert await asked(found) == (SAID, [RUN])


async def test_what_a_newer_image_tells_beside_it_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        body = PodProgress(summary=SAID, ranks=[]).to_wire()
        return web.json_response(body | {"news": 1, "summary": body["summary"] | {"mood": "good"}})

    async with a_pod(answer, monkeypatch) as found:
        assert await asked(found) == (SAID, [RUN])


async def test_a_pod_is_not_asked_again_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []

    async def answer(_: web.Request) -> web.StreamResponse:
        times.append(1)
        return web.json_response(PodProgress(summary=SAID, ranks=[]).to_wire())

    async with a_pod(answer, monkeypatch) as found:
        reader = ProgressReader(lambda _: None)
        for _ in range(5):
            reader.latest(RUN, found)
            await asyncio.gather(*reader._tasks)
        await reader.close()
    assert len(times) == 1


async def test_an_answer_that_comes_in_pieces_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_two_pieces(request: web.Request) -> web.StreamResponse:
        body = PodProgress(summary=SAID, ranks=[]).model_dump_json(by_alias=True).encode()
        response = web.StreamResponse()
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:10])
        await asyncio.sleep(0.1)
        await response.write(body[10:])
        return response

    async with a_pod(in_two_pieces, monkeypatch) as found:
        assert await asked(found) == (SAID, [RUN])


async def too_large(_: web.Request) -> web.StreamResponse:
    return web.Response(text='{"summary": {"stage": "train", "phase": "' + "x" * LARGEST_ANSWER)


async def nonsense(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>")


async def an_error(_: web.Request) -> web.StreamResponse:
    return web.json_response(PodProgress(summary=SAID, ranks=[]).to_wire(), status=500)


async def silence(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


@pytest.mark.parametrize("handler", [too_large, nonsense, an_error, silence])
async def test_any_other_answer_means_unknown(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_pod(handler, monkeypatch) as found:
        assert await asked(found) == (None, [])


async def test_nobody_at_the_address_means_unknown() -> None:
    assert await asked(pod(podIP="127.99.99.99")) == (None, [])


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        pytest.param("10.1.2.3", f"http://10.1.2.3:{PROGRESS_PORT}/progress", id="IPv4"),
        pytest.param("fd00::7", f"http://[fd00::7]:{PROGRESS_PORT}/progress", id="IPv6"),
        pytest.param(None, None, id="none yet"),
    ],
)
def test_the_address_of_a_pod(ip: str | None, expected: str | None) -> None:
    assert progress.address(pod(podIP=ip)) == expected
