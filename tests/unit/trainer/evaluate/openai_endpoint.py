"""An endpoint that answers as it is told: OpenAI's protocol over a real socket, without a model."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.unit.trainer.local_http import listening

Scripted = tuple[int, Any]
"""Status and body; a body that is no object is sent as text."""


def said(text: str, finish: str = "stop", *, chat: bool = False) -> Scripted:
    """An answer."""
    content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return 200, {"choices": [{"index": 0, **content, "finish_reason": finish}]}


def refused(status: int, message: str) -> Scripted:
    """An error in OpenAI's form."""
    return status, {"error": {"message": message, "type": "invalid_request_error"}}


@dataclass
class Endpoint:
    """`script` is answered in order, its last entry for ever."""

    script: list[Scripted]
    url: str = ""
    asked: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)
    """Path, Authorization and body of each request."""

    def next(self) -> Scripted:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@contextmanager
def endpoint(*script: Scripted) -> Iterator[Endpoint]:
    """An Endpoint that listens on the loopback."""
    told = Endpoint(list(script))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append((self.path, self.headers["Authorization"], body))
            status, answer = told.next()
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
            pass

    with listening(Handler) as port:
        told.url = f"http://127.0.0.1:{port}/v1"
        yield told
