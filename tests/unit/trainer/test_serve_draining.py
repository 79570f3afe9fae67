"""A server that is replaced: clients that go on sending see no failure, on new connections and on kept ones."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.serve.draining import QUIET_SECONDS, Draining, Patience
from tests.unit.trainer.launcher_pod import eventually
from tests.unit.trainer.serve_process import RUN, Server, served

LINGER = 4.0
QUESTION: dict[str, Any] = {"model": RUN, "prompt": "Give", "max_tokens": 2, "temperature": 0}


@dataclass
class Sent:
    """One request: when it began (monotonic), its answer or what went wrong."""

    began: float
    answer: httpx.Response | Exception

    @property
    def fine(self) -> bool:
        return isinstance(self.answer, httpx.Response) and self.answer.status_code == 200

    @property
    def closes(self) -> bool:
        """Whether the answer ends its connection."""
        return isinstance(self.answer, httpx.Response) and self.answer.headers.get("connection") == "close"


@dataclass
class Sender:
    """A client that sends one request after the other until it is told to stop."""

    server: Server
    keeps_connection: bool
    sent: list[Sent] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def since(self, moment: float) -> list[Sent]:
        """What began after that moment and is over."""
        return [each for each in self.sent if each.began > moment]

    def stop(self) -> None:
        self.over.set()
        self.thread.join(90)
        assert not self.thread.is_alive()

    def _send(self) -> None:
        kept = httpx.Limits(max_keepalive_connections=None if self.keeps_connection else 0)
        with httpx.Client(limits=kept, timeout=60) as client:
            while not self.over.is_set():
                began = time.monotonic()
                try:
                    answer: httpx.Response | Exception = client.post(f"{self.server.url}/v1/completions", json=QUESTION)
                except httpx.HTTPError as error:
                    answer = error
                self.sent.append(Sent(began, answer))


def test_while_the_server_stops_nothing_fails_and_what_is_under_way_is_finished(tmp_path: Path) -> None:
    with served(tmp_path, FALCON_GRACE_SECONDS="120", FALCON_LINGER_SECONDS=str(LINGER)) as server:
        server.until_ready()
        engine = server.engine()
        senders = [Sender(server, keeps_connection) for keeps_connection in (True, False)]
        eventually(lambda: all(len(sender.sent) >= 3 for sender in senders), "both clients are answered", 60)
        stopped = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.status("/ready") == 503, "readiness ends first")
        assert server.status("/health") == 200
        told = time.monotonic()
        eventually(lambda: all(len(sender.since(told)) >= 2 for sender in senders), "new requests are answered", 60)
        with ThreadPoolExecutor(1) as pool:
            body = QUESTION | {"max_tokens": 1000}
            long = pool.submit(httpx.post, f"{server.url}/v1/completions", json=body, timeout=120)
            eventually(lambda: server.metric("falcon_serve_in_flight") == 3, "all others wait for the long answer", 60)
            for sender in senders:
                sender.stop()
            assert server.process.wait(100) == 143
            assert long.result().json()["usage"]["completion_tokens"] == 1000
        assert server.ending().outcome.reason == "Stopped"
        assert not Path(f"/proc/{engine}").exists()
    for sender in senders:
        in_time = [each for each in sender.sent if each.began < stopped + LINGER]
        assert [each.answer for each in in_time if not each.fine] == []
        assert all(each.closes for each in sender.since(told) if each in in_time)
    assert not any(each.closes for each in senders[0].sent[:3]), "a kept connection is kept while nothing stops"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_server_that_is_not_asked_to_stop_never_closes() -> None:
    clock = Clock()
    draining = Draining(Patience(5, 10, 20), clock)
    clock.now = 1e9
    assert not draining.began
    assert not draining.over()


@given(st.lists(st.integers(0, 120).map(lambda quarters: quarters / 4), max_size=20))
def test_the_door_stays_open_while_requests_come_within_limits(times: list[float]) -> None:
    clock = Clock()
    patience = Patience(linger=5, longest_linger=10, whole=20)
    draining = Draining(patience, clock)
    draining.begin()
    for moment in sorted(times):
        clock.now = moment
        draining.request()
        assert draining.over() == (moment >= patience.longest_linger)
    last = max(times, default=-QUIET_SECONDS)
    for moment in (last + QUIET_SECONDS / 2, last + QUIET_SECONDS, last + 20):
        clock.now = moment
        quiet = moment >= last + QUIET_SECONDS
        assert draining.over() == (moment >= 10 or (moment >= 5 and quiet))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Patience(5.0, 17 / 3, 17.0)),
        ({"FALCON_GRACE_SECONDS": "55"}, Patience(5.0, 47 / 3, 47.0)),
        ({"FALCON_GRACE_SECONDS": "55", "FALCON_LINGER_SECONDS": "0"}, Patience(0.0, 47 / 3, 47.0)),
        ({"FALCON_GRACE_SECONDS": "6"}, Patience(2.0, 2.0, 1.0)),
    ],
)
def test_the_grace_period_of_the_pod_bounds_the_end(environment: dict[str, str], expected: Patience) -> None:
    assert Patience.of(environment) == expected
