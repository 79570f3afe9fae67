"""A watch kept from start to end: every object of a kind that ever carried a run's label, by UID.

A list at the end would miss a child that was made twice and deleted once.
"""

import json
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

KINDS = ("jobs", "deployments", "services", "configmaps", "persistentvolumeclaims")
LABEL = "falcon-finetune.dev/run"


class Seen:
    """UIDs seen under each `kind/name`, and the nodes and owners of pods."""

    def __init__(self) -> None:
        self.uids: dict[str, set[str]] = defaultdict(set)
        self.pods: dict[str, dict[str, object]] = {}
        self._lock = threading.Lock()

    def add(self, item: dict[str, object]) -> None:
        metadata = item["metadata"]
        assert isinstance(metadata, dict)
        with self._lock:
            if item["kind"] == "Pod":
                self.pods[metadata["name"]] = item
            else:
                self.uids[f"{item['kind']}/{metadata['name']}"].add(metadata["uid"])

    def made_twice(self) -> dict[str, set[str]]:
        """Children of which more than one was ever seen under the same name."""
        with self._lock:
            return {name: uids for name, uids in self.uids.items() if len(uids) > 1}


def _read(stream: Iterator[str], seen: Seen) -> None:
    decoder, text = json.JSONDecoder(), ""
    for line in stream:
        text += line
        if line.rstrip() != "}":  # objects are printed one after another, each closed in column one
            continue
        item, _ = decoder.raw_decode(text.lstrip())
        text = ""
        seen.add(item)


@contextmanager
def watching(namespace: str, run: str) -> Iterator[Seen]:
    """Watches all children of one run until the block ends."""
    seen, watches = Seen(), []
    for kind in (*KINDS, "pods"):
        words = ["kubectl", "-n", namespace, "get", kind, "-l", f"{LABEL}={run}", "--watch", "-o", "json"]
        watch = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert watch.stdout is not None
        threading.Thread(target=_read, args=(watch.stdout, seen), daemon=True).start()
        watches.append(watch)
    try:
        yield seen
        broken = [watch.args for watch in watches if watch.poll() is not None]
        assert not broken, f"watches ended early, what they would have seen is unknown: {broken}"
    finally:
        for watch in watches:
            watch.terminate()
            watch.wait()
