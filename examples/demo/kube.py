"""kubectl and helm as a user would type them, on the cluster that KUBECONFIG names."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


class KubectlError(Exception):
    """A command that failed; its text is what the command printed."""


def command(*words: str, stdin: str | None = None, timeout: float = 600) -> str:
    """Runs a program to its end and returns its standard output.

    Raises KubectlError with the program's own words.
    """
    done = subprocess.run(words, check=False, input=stdin, text=True, capture_output=True, timeout=timeout)
    if done.returncode != 0:
        raise KubectlError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str

    def __call__(self, *words: str, stdin: str | None = None, timeout: float = 600) -> str:
        return command("kubectl", "--namespace", self.namespace, *words, stdin=stdin, timeout=timeout)

    def apply(self, *manifests: Manifest) -> str:
        """Applies manifests; each gets this namespace by default."""
        return self(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        )

    def get(self, kind: str, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        text = self("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, selector: str = "") -> Sequence[Manifest]:
        """The objects of a kind that carry the labels."""
        words = ["--selector", selector] if selector else []
        items: list[Manifest] = json.loads(self("get", kind, *words, "-o", "json"))["items"]
        return items

    def ensure_namespace(self, labels: Mapping[str, str]) -> None:
        """Makes the namespace, with its labels, where it is missing."""
        manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": dict(labels)},
        }
        command("kubectl", "apply", "-f", "-", stdin=json.dumps(manifest))

    def wait_for(
        self, what: str, condition: Callable[[], bool], *, timeout: float = 120, interval: float = 0.3
    ) -> None:
        """Polls until `condition` holds. Raises TimeoutError that names `what`."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not after {timeout:.0f} s in namespace {self.namespace}")
            time.sleep(interval)


def condition_of(resource: Manifest, kind: str) -> Manifest:
    """One of a resource's conditions; empty where it has none of this type yet."""
    conditions: Sequence[Manifest] = resource.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})
