"""The probes and the metrics, over HTTP."""

import json
import logging
import socket
from itertools import pairwise

import aiohttp
import pytest

from falcon_operator import metrics
from falcon_operator.api.status import AttemptStatus, FalconFineTuneStatus
from falcon_operator.health import Health
from falcon_operator.logs import JsonLines
from falcon_operator.objects import Key
from tests.unit.operator.policy.pods import NOW


async def ask(health: Health, *paths: str) -> list[tuple[int, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    await health.start("127.0.0.1", port)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            answers = []
            for path in paths:
                async with session.get(path) as response:
                    answers.append((response.status, await response.text()))
            return answers
    finally:
        await health.stop()


async def test_all_is_well() -> None:
    answers = await ask(Health(alive=[lambda: None], ready=[]), "/healthz", "/readyz")
    assert answers == [(200, "ok"), (200, "ok")]


async def test_a_probe_that_fails_says_why() -> None:
    health = Health(alive=[lambda: None, lambda: "no worker moves"], ready=[])
    assert await ask(health, "/healthz", "/readyz") == [(503, "no worker moves"), (200, "ok")]


async def test_metrics_are_served() -> None:
    metrics.API_CALLS.labels(verb="GET", code="200").inc()
    ((status, text),) = await ask(Health([], []), "/metrics")
    assert status == 200
    assert 'falcon_api_calls_total{code="200",verb="GET"}' in text


def value(name: str, **labels: str) -> float:
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_runs_are_counted_in_the_stage_they_are_in() -> None:
    key = Key("ml", "counted")
    before = value("falcon_runs", stage="Training"), value("falcon_runs", stage="Merging")
    metrics.follow(key, FalconFineTuneStatus(stage="Training"), None)
    metrics.follow(key, FalconFineTuneStatus(stage="Training"), FalconFineTuneStatus(stage="Merging"))
    assert (value("falcon_runs", stage="Training"), value("falcon_runs", stage="Merging")) == (before[0], before[1] + 1)
    metrics.forget(key)
    assert value("falcon_runs", stage="Merging") == before[1]


def test_an_attempt_is_counted_once_when_it_starts_and_once_when_it_is_over() -> None:
    key = Key("ml", "attempts")
    running = AttemptStatus(attempt=1)
    ending = running.model_copy(update={"state": "Faulted", "reason": "OutOfMemory"})
    over = ending.model_copy(update={"end_time": NOW})
    history = [FalconFineTuneStatus(attempts=found) for found in ([], [running], [ending], [over], [over])]
    started = value("falcon_training_attempts_started_total")
    ended = value("falcon_training_attempts_ended_total", state="Faulted", reason="OutOfMemory")
    for old, new in pairwise(history):
        metrics.follow(key, old, new)
    assert value("falcon_training_attempts_started_total") == started + 1
    assert value("falcon_training_attempts_ended_total", state="Faulted", reason="OutOfMemory") == ended + 1


@pytest.mark.parametrize("extra", [{}, {"namespace": "ml", "run": "r"}])
def test_a_log_line_is_one_json_object(extra: dict[str, str]) -> None:
    record = logging.LogRecord("falcon_operator.controller.apply", logging.INFO, "", 1, "two\nlines", (), None)
    record.__dict__ |= extra
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert line | extra | {"logger": "controller.apply", "level": "info", "message": "two\nlines"} == line
