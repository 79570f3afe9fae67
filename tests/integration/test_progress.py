"""Progress is asked from rank 0's pod over HTTP, and shown in the status."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from falcon_operator import progress
from falcon_trainer.layout import PROGRESS_PORT
from falcon_trainer.progress import PodProgress, Progress
from tests.integration.api import until
from tests.integration.lab import Lab

POD_ADDRESS = "127.77.0.1"
"""Loopback is a whole network: a real server at the real port, on an address that a pod is said to have."""


@asynccontextmanager
async def serving(progress: Progress) -> AsyncIterator[None]:
    """What a launcher serves."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(PodProgress(summary=progress, ranks=[]).to_wire())

    app = web.Application()
    app.router.add_get("/progress", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, POD_ADDRESS, PROGRESS_PORT).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_the_status_shows_how_far_rank_0_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PERIOD", 1.0)  # the address given by kwok is asked first, in vain
    told = Progress(
        stage="train",
        phase="train",
        step=30,
        total_steps=60,
        loss=1.23456,
        tokens_per_second=1000.4,
        seconds_left=192.0,
        last_checkpoint_step=20,
    )
    async with serving(told), lab.operator():
        await lab.submit()
        pods = await lab.until_pods("train", 2)
        await lab.kubelet.report(pods[0], {"podIP": POD_ADDRESS, "podIPs": [{"ip": POD_ADDRESS}]})

        async def shown() -> dict[str, object] | None:
            training: dict[str, object] = (await lab.run())["status"].get("training") or {}
            return training if "step" in training else None

        training = await until("the progress", shown, 40)
        assert training["progress"] == "50%"
        assert training["loss"] == "1.235"
        assert training["tokensPerSecond"] == 1000
        assert training["eta"] == "3m12s"
        assert training["lastCheckpointStep"] == 20
        await lab.kubelet.lose(pods[1])
        await lab.until_pods("train", 2, attempt=2)
        attempts = (await until("the second record", lambda: _records(lab, 2)))[1]
        assert attempts["resumedFromStep"] == 20


async def _records(lab: Lab, count: int) -> list[dict[str, object]] | None:
    found: list[dict[str, object]] = (await lab.run())["status"]["attempts"]
    return found if len(found) == count else None


async def test_a_pod_that_does_not_answer_is_no_failure(lab: Lab) -> None:
    with socket.create_server((POD_ADDRESS, PROGRESS_PORT)):  # accepts and says nothing
        async with lab.operator():
            await lab.submit()
            pods = await lab.until_pods("train", 2)
            await lab.kubelet.report(pods[0], {"podIP": POD_ADDRESS, "podIPs": [{"ip": POD_ADDRESS}]})
            running = await lab.until_condition("Trained", "Unknown", reason="Running")
            assert running["message"] == "attempt 1 runs"
