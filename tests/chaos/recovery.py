"""What one recovery took: from the kill to the next training step, part by part."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from examples.demo.kube import Kubectl, Manifest
from falcon_trainer.outcome import Outcome
from tests.chaos.timeline import Condition, Timeline
from tests.e2e.gang import said_by, train_pods

UNREACHABLE = "node.kubernetes.io/unreachable"
PATIENCE = 300.0
BEFORE_LOADING = {"", "start", "rendezvous"}


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Seconds, one part after the other; their sum is the time from the kill to the next step."""

    ending: float
    """Until the old attempt was over: its last pod terminal, or its node given up."""
    deciding: float
    """From there until the next attempt's Job was made: the operator's own share."""
    scheduling: float
    """Until all its pods ran."""
    starting: float
    """Imports and rendezvous, until the base was loaded."""
    loading: float
    """Base and checkpoint, until training could go on."""
    first_step: float
    steps_lost: int
    """Steps that were done and had to be done again."""
    node_missed: float | None = None
    """Of `ending`: until the node was tainted as unreachable."""

    @property
    def until_next(self) -> float:
        """From the kill until the next attempt was made."""
        return self.ending + self.deciding

    @property
    def total(self) -> float:
        return self.until_next + self.scheduling + self.starting + self.loading + self.first_step


def recover(
    kubectl: Kubectl, seen: Timeline, run: str, attempt: int, kill: Callable[[], float], *, node: str | None = None
) -> Recovery:
    """Kills (`kill` returns when), and watches the next attempt until it has done a step. `node` is the one that is
    killed, where one is; its attempt counts as over when the node is given up, which is what the toleration says.
    """
    pods = train_pods(kubectl, run, attempt)
    before = int(said_by(kubectl, pods[0]).get("step") or 0)
    killed = kill()
    made = seen.first("the next Job", job(f"{run}-train-{attempt + 1}"), since=killed, timeout=PATIENCE)
    missed = seen.first("the taint", tainted(node), since=killed) if node else None
    over = missed if missed is not None else max(_end(seen, pod, killed) for pod in pods)
    kubectl.wait_for("the next pods", lambda: len(train_pods(kubectl, run, attempt + 1)) == len(pods), timeout=PATIENCE)
    following = train_pods(kubectl, run, attempt + 1)
    running = max(seen.first("a running pod", runs(pod), since=made, timeout=PATIENCE) for pod in following)
    loading, ready, stepped, resumed = _progress(kubectl, following[0])
    return Recovery(
        ending=over - killed,
        deciding=made - over,
        scheduling=running - made,
        starting=loading - running,
        loading=ready - loading,
        first_step=stepped - ready,
        steps_lost=max(0, max(before, _last_step(kubectl, run, attempt)) - resumed),
        node_missed=None if missed is None else missed - killed,
    )


def _end(seen: Timeline, pod: Manifest, since: float) -> float:
    return seen.first(f"the end of {pod['metadata']['name']}", ended(pod), since=since, timeout=PATIENCE)


def _progress(kubectl: Kubectl, pod: Manifest) -> tuple[float, float, float, int]:
    """When loading began, when training could go on, when the first step was done, and the step that it came from."""
    loading = ready = 0.0
    resumed = 0
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        said, now = said_by(kubectl, pod), time.monotonic()
        if not loading and said.get("phase", "") not in BEFORE_LOADING:
            loading = now
        if not ready and said.get("resumedFromStep") is not None:
            ready, resumed = now, int(said["resumedFromStep"])
        if ready and int(said.get("step") or 0) > resumed:
            return loading, ready, now, resumed
    raise TimeoutError(f"pod {pod['metadata']['name']} did no step within {PATIENCE:.0f} s")


def _last_step(kubectl: Kubectl, run: str, attempt: int) -> int:
    """The last step that pods of a dead attempt tell; 0 where none can."""
    steps = [told.step or 0 for pod in train_pods(kubectl, run, attempt) if (told := _outcome(pod))]
    return max(steps, default=0)


def _outcome(pod: Manifest) -> Outcome | None:
    statuses: Sequence[dict[str, Any]] = pod["status"].get("containerStatuses") or []
    messages = [str(each["state"].get("terminated", {}).get("message") or "") for each in statuses]
    return next((outcome for message in messages if (outcome := Outcome.decode(message))), None)


# --- what to look for in a timeline


def job(name: str) -> Condition:
    return lambda state: state["kind"] == "Job" and state["metadata"]["name"] == name


def ended(pod: Manifest) -> Condition:
    return lambda state: _same(state, pod) and state["status"].get("phase") in ("Failed", "Succeeded")


def runs(pod: Manifest) -> Condition:
    return lambda state: _same(state, pod) and state["status"].get("phase") == "Running"


def tainted(node: str | None) -> Condition:
    """The node is no longer heard of, and its pods' tolerations begin to run."""

    def found(state: Manifest) -> bool:
        taints = (state.get("spec") or {}).get("taints") or []
        wanted = (UNREACHABLE, "NoExecute")
        return (
            state["kind"] == "Node"
            and state["metadata"]["name"] == node
            and any((taint["key"], taint["effect"]) == wanted for taint in taints)
        )

    return found


def _same(state: Manifest, pod: Manifest) -> bool:
    return bool(state["kind"] == "Pod" and state["metadata"]["uid"] == pod["metadata"]["uid"])
