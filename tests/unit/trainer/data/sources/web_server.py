"""A web server with TLS, ranges and versions, that can cut connections and change its mind."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.cluster.pki import Authority
from tests.unit.trainer.local_http import listening


@dataclass
class Site:
    """One file at any path. `faults` are taken one a request: a status, or the bytes after which the line is cut."""

    content: bytes
    version: str | None = '"v1"'
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    faults: list[tuple[str, int]] = field(default_factory=list)
    ranges: bool = True
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    authority: Path = Path()

    def answer(self, request: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(request)
        headers = dict(self.headers) | ({"ETag": self.version} if self.version else {})
        match = re.fullmatch(r"bytes=(\d+)-", request.get("range", ""))
        if self.status != 200 or not match or not self.ranges or request.get("if-range") != self.version:
            return self.status, headers, self.content if self.status == 200 else b""
        first, size = int(match.group(1)), len(self.content)
        if first >= size:
            return 416, headers | {"Content-Range": f"bytes */{size}"}, b""
        return 206, headers | {"Content-Range": f"bytes {first}-{size - 1}/{size}"}, self.content[first:]


@contextmanager
def serving(site: Site, folder: Path) -> Iterator[Site]:
    """The site at an https:// address of this machine, certified by an authority of its own in `folder`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, number = site.faults.pop(0) if site.faults else ("", 0)
            code, headers, content = site.answer({name.lower(): value for name, value in self.headers.items()})
            if kind == "status":
                code, headers, content = number, {}, b""
            self.send_response(code)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if kind == "cut":
                content, self.close_connection = content[:number], True
            site.sent += len(content)
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    authority = Authority.create(folder)
    certificate = authority.issue("server", "localhost", names=["localhost"], addresses=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with listening(Handler, context) as port:
        site.url, site.authority = f"https://localhost:{port}", authority.certificate
        yield site
