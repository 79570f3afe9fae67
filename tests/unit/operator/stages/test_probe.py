"""The probe that is mounted into vLLM's pods, against a server that plays vLLM."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from falcon_operator.stages import probe


class Played(ThreadingHTTPServer):
    """Answers as told; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, Any] = (200, {"choices": [{"text": "2"}]})
        self.counts = [7.0]
        """The count of generated tokens at each look; the last one stays."""
        self.asked: list[tuple[str, str | None, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Played

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        status, content = self.server.answer
        self._send(status, json.dumps(content))

    def do_GET(self) -> None:
        counts = self.server.counts
        count = counts.pop(0) if len(counts) > 1 else counts[0]
        self._send(200, f'# TYPE x counter\nvllm:generation_tokens_total{{model_name="r"}} {count}\nother 1\n')

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    monkeypatch.setenv("FALCON_MODEL", "r")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    monkeypatch.setattr(probe, "BETWEEN", 0.01)
    with Played() as played:
        thread = Thread(target=played.serve_forever, args=(0.01,))
        thread.start()
        yield played
        played.shutdown()
        thread.join()


@pytest.mark.parametrize("question", ["ready", "alive"])
def test_a_completion_is_asked_for_and_is_enough(server: Played, question: str) -> None:
    assert probe.main(question, server.url) == 0
    ((path, token, ask),) = server.asked
    assert (path, token) == ("/v1/completions", None)
    assert (ask["model"], ask["max_tokens"]) == ("r", 1)


def test_the_bearer_token_is_sent(server: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert probe.main("ready", server.url) == 0
    assert server.asked[0][1] == "Bearer secret"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((500, {}), id="an error of the server"),
        pytest.param((401, {}), id="a token that is refused"),
        pytest.param((200, {"choices": []}), id="no answer"),
        pytest.param((200, "text"), id="something else"),
    ],
)
def test_without_a_completion_it_is_neither_ready_nor_alive(server: Played, answer: tuple[int, Any]) -> None:
    server.answer = answer
    assert probe.main("ready", server.url) == 1
    assert probe.main("alive", server.url) == 1


@pytest.mark.parametrize(("question", "code"), [("alive", 0), ("ready", 0), ("started", 1)])
def test_a_server_that_works_for_others_is_alive_and_ready_if_it_has_ever_answered(
    server: Played, question: str, code: int
) -> None:
    server.answer = (503, {})
    server.counts = [7.0, 8.0]
    assert probe.main(question, server.url) == code


def test_a_proxy_for_the_world_outside_is_not_asked(server: Played) -> None:
    told = os.environ | {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    code = "import sys; from falcon_operator.stages import probe; sys.exit(probe.main('ready', sys.argv[1]))"
    # In a process of its own: the variables are read when the module is.
    assert subprocess.run([sys.executable, "-c", code, server.url], env=told, check=False).returncode == 0


def test_where_nobody_listens_nothing_lives(server: Played) -> None:
    nowhere = "http://127.0.0.1:9"  # discard: nothing of ours listens there
    assert probe.main("ready", nowhere) == probe.main("alive", nowhere) == 1
