"""A Hub of one repository: a small server that speaks the few requests needed; the real one is out of reach."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from tests.unit.trainer.local_http import listening

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Hub:
    """A repository. `refusal` is an HTTP status and error code for everything, `token` is demanded."""

    name: str
    folder: Path
    kind: Literal["model", "dataset"] = "model"
    refusal: tuple[int, str] | None = None
    token: str | None = None
    broken: str = ""
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, authorization: str | None) -> Answer:
        self.asked.append(path)
        if self.refusal:
            return self.refusal[0], {"X-Error-Code": self.refusal[1]}, b""
        if self.token and authorization != f"Bearer {self.token}":
            return 401, {"X-Error-Code": "GatedRepo"}, b""
        api = f"/api/{self.kind}s/{self.name}"
        if path.startswith(f"{api}/revision/"):
            return self._info(unquote(path.removeprefix(f"{api}/revision/")))
        if self.broken and path.endswith(self.broken):
            return 410, {}, b""  # not 500, which the client tries again for half a minute
        if path == f"{api}/tree/{COMMIT}":
            return self._tree()
        below = ("/datasets" if self.kind == "dataset" else "") + f"/{self.name}/resolve/{COMMIT}/"
        if path.startswith(below):
            file = self.folder / unquote(path.removeprefix(below))
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(file)}"'}, file.read_bytes()
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def files(self) -> dict[str, Path]:
        found = (file for file in sorted(self.folder.rglob("*")) if file.is_file())
        return {file.relative_to(self.folder).as_posix(): file for file in found}

    def _info(self, revision: str) -> Answer:
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = [{"rfilename": name, "size": file.stat().st_size} for name, file in self.files().items()]
        info: dict[str, Any] = {"id": self.name, "sha": COMMIT, "siblings": files, "tags": [], "private": False}
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()

    def _tree(self) -> Answer:
        files = [
            {"type": "file", "path": name, "size": file.stat().st_size, "oid": digest(file)}
            for name, file in self.files().items()
        ]
        return 200, {"Content-Type": "application/json"}, json.dumps(files).encode()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The Hub at an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, headers, content = hub.answer(self.path.partition("?")[0], self.headers.get("Authorization"))
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with listening(Handler) as port:
        hub.url = f"http://127.0.0.1:{port}"
        yield hub
