"""A gang as a victim: where it runs, how far it is, and what a test does to it."""

import json
import signal
from typing import Any

from examples.demo.kube import Kubectl, KubectlError, Manifest
from tests.e2e.inside import SCRIPTS
from tests.e2e.runs import status_of

INDEX = "batch.kubernetes.io/job-completion-index"


def train_pods(kubectl: Kubectl, run: str, attempt: int) -> list[Manifest]:
    """The pods of one attempt, that of index 0 first."""
    found = kubectl.list("pods", f"batch.kubernetes.io/job-name={run}-train-{attempt}")
    return sorted(found, key=lambda pod: int(pod["metadata"]["labels"][INDEX]))


def newest_attempt(kubectl: Kubectl, run: str) -> int:
    """The number of the attempt that the status knows as the newest; 0 before the first one."""
    attempts = status_of(kubectl, run).get("attempts") or [{"attempt": 0}]
    return int(attempts[-1]["attempt"])


def said_by(kubectl: Kubectl, pod: Manifest) -> dict[str, Any]:
    """What a pod tells of itself right now; the status follows some seconds later. Empty while it does not answer."""
    place = f"namespaces/{kubectl.namespace}/pods/{pod['metadata']['name']}:8080"
    try:
        text = kubectl("get", "--raw", f"/api/v1/{place}/proxy/progress", "--request-timeout=5s")
    except KubectlError:
        return {}
    summary: dict[str, Any] = json.loads(text)["summary"]
    return summary


def step_of(kubectl: Kubectl, run: str, attempt: int) -> int:
    """The step that rank 0 of this attempt has done; 0 before the first one."""
    pods = train_pods(kubectl, run, attempt)
    return int(said_by(kubectl, pods[0]).get("step") or 0) if pods else 0


def wait_for_step(kubectl: Kubectl, run: str, step: int, *, attempt: int = 1, timeout: float = 400) -> None:
    """Waits until rank 0 has done this step. Fails where the attempt ends before."""

    def done() -> bool:
        records = status_of(kubectl, run).get("attempts") or []
        ended = next((each for each in records if each["attempt"] == attempt and each.get("endTime")), None)
        assert ended is None, f"attempt {attempt} of {run} ended before step {step}: {ended}"
        return step_of(kubectl, run, attempt) >= step

    kubectl.wait_for(f"step {step} of {run}", done, timeout=timeout, interval=0.1)


def wait_for_checkpoint(kubectl: Kubectl, run: str, step: int, *, attempt: int = 1, timeout: float = 400) -> int:
    """Waits until a checkpoint of this step or a later one is whole; returns the step of the newest."""
    newest = 0

    def saved() -> bool:
        nonlocal newest
        pods = train_pods(kubectl, run, attempt)
        newest = int((said_by(kubectl, pods[0]) if pods else {}).get("lastCheckpointStep") or 0)
        return newest >= step

    kubectl.wait_for(f"a checkpoint of {run}", saved, timeout=timeout, interval=0.1)
    return newest


def signal_rank(kubectl: Kubectl, pod: Manifest, rank: int, number: signal.Signals) -> None:
    """Sends a signal to one rank's process, from inside its pod."""
    script = (SCRIPTS / "signal_rank.py").read_text()
    kubectl("exec", "-i", pod["metadata"]["name"], "--", "python", "-", str(rank), number.name, stdin=script)


def node_of(pod: Manifest) -> str:
    """The node that a pod was placed on."""
    return str(pod["spec"]["nodeName"])
