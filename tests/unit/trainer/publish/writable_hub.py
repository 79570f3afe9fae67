"""A Hub of one repository that can be written: the requests of an upload without Xet; the real one is out of reach."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.unit.trainer.local_http import listening

LARGE = 4096
"""Bytes from which on a file is one of Git LFS."""
TOKEN = "hf_may_write"


@dataclass
class Repository:
    """What the Hub holds; `refuses` is the HTTP status of every request, `spoils` a file that it keeps wrong."""

    name: str
    refuses: int | None = None
    spoils: str | None = None
    made: dict[str, object] | None = None
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large contents by their SHA-256."""
    commits: int = 0
    uploads: int = 0
    """Large contents that were sent."""
    url: str = ""

    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, object]:
        if self.refuses:
            return self.refuses, {"error": "no"}
        if path.startswith("/object/"):
            self.uploads += 1
            self.objects[path.removeprefix("/object/")] = body
            return 200, {}
        if authorization != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            status, self.made = (409 if self.made else 200), self.made or json.loads(body)
            return status, {"url": f"{self.url}/{self.name}"}
        if path == f"/{self.name}.git/info/lfs/objects/batch":
            return 200, self._batch(json.loads(body))
        if path.startswith(f"/{self.name}/resolve/"):
            branch, _, file = path.removeprefix(f"/{self.name}/resolve/").partition("/")
            content = self.branches[branch].get(file)
            return (404, b"") if content is None else (200, content)
        verb, _, branch = path.removeprefix(f"/api/models/{self.name}/").partition("/")
        return self._about(method, verb, branch.removesuffix("?"), body)

    def _about(self, method: str, verb: str, branch: str, body: bytes) -> tuple[int, object]:
        if verb == "branch":
            known = branch in self.branches
            self.branches.setdefault(branch, {})
            return (409 if known else 200), {}
        if branch not in self.branches:
            return 404, {"error": "no such revision"}
        if verb == "tree":
            return 200, [self._entry(*item) for item in sorted(self.branches[branch].items())]
        if verb == "revision":
            return 200, {"id": self.name, "sha": f"{self.commits:040x}", "siblings": [], "tags": []}
        if verb == "preupload":
            asked = json.loads(body)["files"]
            mode = {file["path"]: "lfs" if file["size"] >= LARGE else "regular" for file in asked}
            return 200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in mode.items()]}
        assert (method, verb) == ("POST", "commit"), f"{method} {verb}"
        return 200, self._commit(branch, [json.loads(line) for line in body.splitlines()])

    def _batch(self, asked: dict[str, list[dict[str, object]]]) -> dict[str, object]:
        found = []
        for each in asked["objects"]:
            actions = {} if each["oid"] in self.objects else {"upload": {"href": f"{self.url}/object/{each['oid']}"}}
            found.append({"oid": each["oid"], "size": each["size"]} | ({"actions": actions} if actions else {}))
        return {"transfer": "basic", "objects": found}

    def _commit(self, branch: str, lines: list[dict[str, Any]]) -> dict[str, object]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.branches[branch][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.branches[branch][value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.branches[branch][value["path"]]
        if self.spoils:
            self.branches[branch][self.spoils] = b"?" * len(self.branches[branch][self.spoils])
        self.commits += 1
        return {"commitUrl": f"{self.url}/{self.name}/commit/{self.commits}", "commitOid": f"{self.commits:040x}"}

    def _entry(self, path: str, content: bytes) -> dict[str, object]:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git}
        if len(content) < LARGE:
            return entry
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry | {"lfs": lfs}


@contextmanager
def serving(repository: Repository) -> Iterator[Repository]:
    """The Hub at an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            path = self.path.partition("?")[0]
            status, found = repository.answer(self.command, path, body, self.headers.get("Authorization"))
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            if status == 404 and "/resolve/" in path:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with listening(Handler) as port:
        repository.url = f"http://127.0.0.1:{port}"
        yield repository
