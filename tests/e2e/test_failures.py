"""Rows of the failure table that only a real cluster can show: reason, advice, and what the run does next.

Bad data and a missing image end a run before any gang exists: test_bad_input. What a gang survives: test_survival.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo.inputs import claim
from examples.demo.kube import Kubectl, Manifest, condition_of
from tests.cluster import faults
from tests.cluster.provider import choose
from tests.e2e.disks import disk_path, small_disk
from tests.e2e.gang import train_pods
from tests.e2e.inside import run_inside
from tests.e2e.runs import ADAPTER_ONLY, KIND, merged, run_named, status_of, wait_true

WORKSPACE, DAMAGED, SMALL = "failures", "damaged", "small"
ALONE = {"nodes": 1, "processesPerNode": 1}
MEGABYTES, MORE_MEGABYTES = 24, 600
"""Room for some checkpoints, but not for all that the run keeps; and for all of them."""

RUNS: dict[str, dict[str, Any]] = {
    "out-of-memory": {
        "gang": {**ALONE, "maxRestarts": 0},
        "podTemplate": {"train": {"resources": {"limits": {"memory": "200Mi"}}}},
    },
    "diverged": {"gang": ALONE, "model": {"source": f"pvc://{DAMAGED}/base"}},
    "never-whole": {"gang": {"nodes": 3, "assemblyTimeoutSeconds": 20}, "training": {"globalBatchSize": 12}},
}
FULL: dict[str, Any] = {
    "gang": ALONE,
    "training": {"maxSteps": 30, "checkpoint": {"everySteps": 1, "keep": 100}},
}


def run(name: str, changes: dict[str, Any], workspace: str = WORKSPACE) -> Manifest:
    """An adapter-only run on a workspace that exists."""
    place = {"claimName": workspace, "size": None, "accessMode": None}
    return run_named(name, **merged(changes, {**ADAPTER_ONLY, "workspace": place}))


@pytest.fixture(scope="module")
def applied(kubectl: Kubectl) -> None:
    """All runs at once: none needs another one's time."""
    kubectl.apply(claim(WORKSPACE), claim(DAMAGED))
    run_inside(kubectl, "damage_base.py", "/damaged/base", claims={"/damaged": DAMAGED}, writable=True)
    kubectl.apply(*(run(name, changes) for name, changes in RUNS.items()))


@pytest.fixture(scope="module")
def full(kubectl: Kubectl, applied: None) -> Iterator[str]:
    """A run on a disk that is soon full; the disk's node."""
    if choose() != "local":
        pytest.skip("only a node of the local cluster gives a disk of a few megabytes")
    node = kubectl.list("nodes")[0]["metadata"]["name"]
    with small_disk(kubectl, SMALL, node=node, megabytes=MEGABYTES):
        kubectl.apply(run("full", FULL, SMALL))
        yield node
        kubectl("delete", KIND, "full")
        kubectl("delete", "persistentvolumeclaim", SMALL)


def told(kubectl: Kubectl, name: str, reason: str) -> str:
    """The message of the condition Trained, once it is False for this reason."""

    def condition() -> Manifest:
        return condition_of({"status": status_of(kubectl, name)}, "Trained")

    def found() -> bool:
        return (condition().get("status"), condition().get("reason")) == ("False", reason)

    try:
        kubectl.wait_for(f"{name}: Trained=False, {reason}", found, timeout=400)
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{kubectl('describe', KIND, name)}") from error
    return str(condition()["message"])


@pytest.mark.usefixtures("applied")
def test_a_pod_that_uses_up_its_memory_is_told_to_get_more(kubectl: Kubectl) -> None:
    message = told(kubectl, "out-of-memory", "RestartsExhausted")
    failure = status_of(kubectl, "out-of-memory")["training"]["lastFailure"]
    assert failure["reason"] == "OutOfMemory"
    assert "resources.limits.memory" in failure["message"]
    assert "podTemplate.train" in failure["message"]
    assert "Raise gang.maxRestarts" in message, "a person is not told how to try once more"


@pytest.mark.usefixtures("applied")
def test_a_loss_that_is_no_number_ends_the_run_with_its_step(kubectl: Kubectl) -> None:
    message = told(kubectl, "diverged", "LossNotFinite")
    assert "step 1" in message
    assert "learningRate" in message
    (attempt,) = status_of(kubectl, "diverged")["attempts"]
    assert attempt["retryable"] is False, "it would diverge again"


@pytest.mark.usefixtures("applied")
def test_a_gang_that_no_nodes_can_take_says_so_releases_them_and_comes_again(kubectl: Kubectl) -> None:
    assert "nodes are available" in told(kubectl, "never-whole", "Unschedulable"), "not the scheduler's own words"

    def attempts() -> list[Manifest]:
        return list(status_of(kubectl, "never-whole").get("attempts", []))

    kubectl.wait_for("a second attempt of never-whole", lambda: len(attempts()) > 1, timeout=240)
    assert attempts()[0]["reason"] == "GangNotScheduled"
    assert attempts()[0]["state"] == "Disrupted", "to wait for nodes must use up no restart"
    phases = {pod["status"]["phase"] for pod in train_pods(kubectl, "never-whole", 1)}
    assert phases.isdisjoint({"Pending", "Running"}), "the first attempt still holds nodes"
    kubectl("delete", KIND, "never-whole", "--wait=false")


def test_a_full_disk_ends_the_run_and_its_last_checkpoint_is_good(kubectl: Kubectl, full: str) -> None:
    assert "make the volume larger" in told(kubectl, "full", "DiskFull")
    saved = status_of(kubectl, "full")["training"]["lastCheckpointStep"]
    assert saved >= 1

    faults.mount_small_disk(full, disk_path(kubectl, SMALL), megabytes=MORE_MEGABYTES)
    kubectl("delete", "job", "full-train-1")
    kubectl.wait_for("the second attempt", lambda: len(status_of(kubectl, "full")["attempts"]) == 2, timeout=120)
    status = wait_true(kubectl, "full", "Trained")
    assert status["attempts"][1]["resumedFromStep"] >= saved
