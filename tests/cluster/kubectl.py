"""kubectl of our own build, bound to one kubeconfig; the context of the person at the keyboard is never touched."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.shell import run, succeeds
from tests.cluster.tools import find


@dataclass(frozen=True)
class Kubectl:
    kubeconfig: Path

    def __call__(self, *words: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Standard output of `kubectl WORDS`; raises ClusterError with kubectl's complaint when it fails."""
        return run([find("kubectl"), f"--kubeconfig={self.kubeconfig}", *words], stdin=stdin, timeout=timeout)

    def succeeds(self, *words: str) -> bool:
        return succeeds([find("kubectl"), f"--kubeconfig={self.kubeconfig}", *words])

    def get(self, *words: str) -> Any:
        """The parsed answer of `kubectl get WORDS`."""
        return json.loads(self("get", *words, "-ojson"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create the objects, or change them to what is given."""
        self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
