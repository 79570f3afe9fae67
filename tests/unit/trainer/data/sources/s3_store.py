"""An S3 store of the tests: gofakes3, built once from its Go module into the cache of the cluster's programs.

Clients see it through a gate, which counts requests and can answer in the store's place: gofakes3 takes any
credentials and is never overloaded.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.cluster.tools import S3, path_of
from tests.unit.trainer.local_http import listening

BUCKET = "records"
START_SECONDS = 30
ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>no</Message></Error>'
Fault = Callable[[str, str], tuple[int, str] | None]
"""method and path of a request → status and S3's code of the error to answer with, or None"""


@dataclass
class Store:
    """A running store with one bucket."""

    behind: str
    """Address of gofakes3 itself."""
    url: str = ""
    """Address of the gate."""
    fault: Fault = lambda method, path: None
    asked: list[str] = field(default_factory=list)
    """Requests that came through the gate: method and path."""
    sent: int = 0
    """Bytes of objects that went through it."""

    def put(self, key: str, content: bytes) -> None:
        httpx.put(f"{self.behind}/{BUCKET}/{quote(key)}", content=content).raise_for_status()

    def clear(self) -> None:
        for key in re.findall(r"<Key>([^<]+)</Key>", httpx.get(f"{self.behind}/{BUCKET}").text):
            httpx.delete(f"{self.behind}/{BUCKET}/{quote(key)}").raise_for_status()
        self.fault, self.asked, self.sent = (lambda method, path: None), [], 0


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    """The store, in memory, on a free port of this machine; the test is skipped where it cannot be built."""
    if not S3.built("gofakes3").exists() and not shutil.which("go"):
        pytest.skip("an S3 store is built from its Go module, and there is no Go")
    command = [str(path_of("gofakes3")), "-backend", "mem", "-host", "127.0.0.1:0", "-initialbucket", BUCKET]
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with _gate(Store(f"http://127.0.0.1:{_port(folder / 'store.log', process)}")) as store:
            yield store
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if match := re.search(r"using port: (\d+)", log.read_text()):
            return int(match.group(1))
        time.sleep(0.02)
    return pytest.fail(f"the S3 store did not start: {log.read_text()[-2000:]}")


@contextmanager
def _gate(store: Store) -> Iterator[Store]:
    client = httpx.Client()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            store.asked.append(f"{self.command} {path}")
            if fault := store.fault(self.command, path):
                self._answer(fault[0], {"Content-Type": "application/xml"}, ERROR.format(fault[1]).encode())
                return
            # Not the signature, which is made for the gate's address.
            left_out = ("host", "authorization", "connection", "expect")
            passed = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            response = client.request(self.command, f"{store.behind}{self.path}", headers=passed, content=body)
            store.sent += len(response.content) if path.count("/") > 1 else 0
            headers = {name: value for name, value in response.headers.items() if name not in ("connection", "date")}
            self._answer(response.status_code, headers, response.content)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in ({"content-length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with client, listening(Handler) as port:
        store.url = f"http://127.0.0.1:{port}"
        yield store
