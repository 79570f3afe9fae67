"""A watch kept from start to end: every object of a kind that ever carried a run's label, by UID.

A list at the end would miss a child that was made twice and deleted once.
"""

import json
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from examples.demo.kube import Manifest

KINDS = ("jobs", "deployments", "services", "configmaps", "persistentvolumeclaims")
LABEL = "falcon-finetune.dev/run"


class Seen:
    """UIDs seen under each `kind/name`, and the nodes and owners of pods."""

    def __init__(self) -> None:
        self.uids: dict[str, set[str]] = defaultdict(set)
        self.pods: dict[str, Manifest] = {}
        self._lock = threading.Lock()

    def add(self, item: Manifest) -> None:
        metadata = item["metadata"]
        with self._lock:
            if item["kind"] == "Pod":
                self.pods[metadata["name"]] = item
            else:
                self.uids[f"{item['kind']}/{metadata['name']}"].add(metadata["uid"])

    def made_twice(self) -> dict[str, set[str]]:
        """Children of which more than one was ever seen under the same name."""
        with self._lock:
            return {name: uids for name, uids in self.uids.items() if len(uids) > 1}


def _read(stream: Iterator[str], see: Callable[[Manifest], None]) -> None:
    decoder, text = json.JSONDecoder(), ""
    for line in stream:
        text += line
        if line.rstrip() != "}":  # objects are printed one after another, each closed in column one
            continue
        item, _ = decoder.raw_decode(text.lstrip())
        text = ""
        see(item)


@contextmanager
def watches(see: Callable[[Manifest], None], *selections: Sequence[str]) -> Iterator[None]:
    """Shows every state of the selected objects to `see`, each selection in a thread of its own, until the block ends;
    a selection is what follows `kubectl get`.
    """
    running = []
    for words in selections:
        command = ["kubectl", "get", *words, "--watch", "-o", "json"]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watch.stdout is not None
        threading.Thread(target=_read, args=(watch.stdout, see), daemon=True).start()
        running.append(watch)
    try:
        yield
        broken = [watch.args for watch in running if watch.poll() is not None]
        assert not broken, f"watches ended early, what they would have seen is unknown: {broken}"
    finally:
        for watch in running:
            watch.terminate()
            watch.wait()


@contextmanager
def watching(namespace: str, run: str) -> Iterator[Seen]:
    """Watches all children of one run until the block ends."""
    seen = Seen()
    with watches(seen.add, *(("-n", namespace, kind, "-l", f"{LABEL}={run}") for kind in (*KINDS, "pods"))):
        yield seen
