"""Asks an endpoint all the time, on kept and on new connections, until /tmp/stop is there; then tells what came of it.

Arguments: address (before /v1), model. Prints one JSON object: how many were asked on each kind of connection, what
failed and how, and the runs whose servers answered, in the order of their first appearance (each is also printed when
it appears). No request is repeated: a client that repeats would hide what is looked for.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

STOP = Path("/tmp/stop")
TIMEOUT = 120.0
"""Seconds: one answer may wait behind others on a busy machine; a lost one never comes."""


class Asked:
    """What came of all requests."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self.servers: list[str] = []
        self._lock = threading.Lock()

    def note(self, kind: str, failure: str | None, server: str | None = None) -> None:
        with self._lock:
            self.counts[kind] += 1
            if failure and len(self.failed) < 20:
                self.failed.append(f"{kind} after {sum(self.counts.values())}: {failure}")
            if server and server not in self.servers:
                self.servers.append(server)
                print(f"answered by {server}", flush=True)


def ask(client: httpx.Client, address: str, model: str) -> tuple[str | None, str | None]:
    """Why one request failed, or None; and the run that the server belongs to."""
    body = {"model": model, "prompt": "### Instruction\nhello\n\n### Answer\n", "max_tokens": 2, "temperature": 0}
    try:
        response = client.post(f"{address}/v1/completions", json=body)
        if response.status_code != httpx.codes.OK:
            return f"HTTP {response.status_code}: {response.text[:200]}", None
        listed = client.get(f"{address}/v1/models").json()["data"]
        return None, next((entry["id"] for entry in listed if entry["id"] != model), None)
    except (httpx.HTTPError, ValueError, LookupError) as error:
        return f"{type(error).__name__}: {error}", None


def kept(asked: Asked, address: str, model: str) -> None:
    with httpx.Client(timeout=TIMEOUT) as client:
        while not STOP.exists():
            asked.note("kept", *ask(client, address, model))


def new(asked: Asked, address: str, model: str) -> None:
    while not STOP.exists():
        with httpx.Client(timeout=TIMEOUT) as client:
            asked.note("new", *ask(client, address, model))
        time.sleep(0.05)


def main(address: str, model: str) -> None:
    asked = Asked()
    threads = [threading.Thread(target=each, args=(asked, address, model)) for each in (kept, new)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"counts": asked.counts, "failed": asked.failed, "servers": asked.servers}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
