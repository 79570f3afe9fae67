"""One gang through everything that ends an attempt on a real cluster, beside an undisturbed twin.

A rank is killed, a rank is stopped, the API server restarts, the node is lost; and the adapter is the twin's, bit by
bit. Named to come last: for a while the cluster has one node less.
"""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo.inputs import claim
from examples.demo.kube import Kubectl, Manifest
from tests.cluster import faults
from tests.cluster.provider import choose
from tests.e2e.gang import signal_rank, train_pods, wait_for_checkpoint
from tests.e2e.inside import run_inside
from tests.e2e.runs import ADAPTER_ONLY, merged, run_named, status_of, wait_true

CALM, VICTIM, WORKSPACE = "calm", "victim", "survival"
EVERY = 5
SPEC: dict[str, Any] = {
    # Both ranks in one pod, so that the gang finds room on the other node. The time-out is far longer than a step takes
    # even where everything else runs at the same time.
    "gang": {"nodes": 1, "processesPerNode": 2, "nodeLossTolerationSeconds": 5, "hangTimeout": "20s"},
    "training": {"maxSteps": 60, "checkpoint": {"everySteps": EVERY}},
    "workspace": {"claimName": WORKSPACE, "size": None, "accessMode": None},
}
HOSTNAME = "kubernetes.io/hostname"


def preferring(node: str) -> Manifest:
    """A gang that comes to this node, and to another one where there is no such node."""
    here = {"key": HOSTNAME, "operator": "In", "values": [node]}
    wish = {"weight": 100, "preference": {"matchExpressions": [here]}}
    return {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}}


def placed(name: str, where: Manifest) -> Manifest:
    """An adapter-only run whose gang is placed so."""
    return run_named(name, **merged(merged(SPEC, ADAPTER_ONLY), {"podTemplate": {"train": where}}))


@pytest.fixture(scope="module")
def saved(kubectl: Kubectl) -> Iterator[dict[int, int]]:
    """Lets everything happen to the victim; by attempt, the step of a checkpoint that there was before its end."""
    if choose() != "local":
        pytest.skip("only the local cluster's nodes can lose their power")
    safe, doomed = (node["metadata"]["name"] for node in kubectl.list("nodes"))
    kubectl.apply(
        claim(WORKSPACE), placed(CALM, {"nodeSelector": {HOSTNAME: safe}}), placed(VICTIM, preferring(doomed))
    )
    steps: dict[int, int] = {}
    for attempt, number in ((1, signal.SIGKILL), (2, signal.SIGSTOP)):
        steps[attempt] = further(kubectl, steps, attempt)
        signal_rank(kubectl, train_pods(kubectl, VICTIM, attempt)[0], 1, number)
    steps[3] = further(kubectl, steps, 3)
    faults.restart_api_server()
    faults.kill_node(doomed)
    try:
        kubectl.wait_for("the fourth attempt", lambda: len(status_of(kubectl, VICTIM)["attempts"]) > 3, timeout=240)
        for name in (VICTIM, CALM):
            wait_true(kubectl, name, "Trained")
        yield steps
    finally:
        faults.start_node(doomed)


def further(kubectl: Kubectl, steps: dict[int, int], attempt: int) -> int:
    """The step of a checkpoint of this attempt, once it has one beyond those before."""
    return wait_for_checkpoint(kubectl, VICTIM, steps.get(attempt - 1, 0) + EVERY, attempt=attempt)


@pytest.fixture(scope="module")
def attempts(kubectl: Kubectl, saved: dict[int, int]) -> list[Manifest]:
    """The victim's book of attempts, at its end."""
    return list(status_of(kubectl, VICTIM)["attempts"])


ENDS = {
    1: ("Faulted", "Killed", "rank 1 was killed by SIGKILL"),
    2: ("Faulted", "Hung", "rank 1 is stopped (SIGSTOP)"),
    3: ("Disrupted", "NodeLost", "stopped reporting"),
}


@pytest.mark.parametrize("number", ENDS)
def test_each_end_has_its_reason(attempts: list[Manifest], number: int) -> None:
    state, reason, words = ENDS[number]
    ended = attempts[number - 1]
    assert (ended["attempt"], ended["state"], ended["reason"]) == (number, state, reason), ended
    assert words.lower() in ended["message"].lower()


def test_nothing_else_ended_an_attempt(attempts: list[Manifest]) -> None:
    """The API server's restart, above all."""
    assert [each["state"] for each in attempts] == ["Faulted", "Faulted", "Disrupted", "Succeeded"]


def test_each_attempt_goes_on_from_the_newest_checkpoint(attempts: list[Manifest], saved: dict[int, int]) -> None:
    for following in attempts[1:]:
        assert following["resumedFromStep"] >= saved[following["attempt"] - 1], following


def test_the_gang_goes_on_elsewhere_when_its_node_is_lost(attempts: list[Manifest]) -> None:
    lost, last = attempts[-2:]
    assert lost["nodes"]
    assert last["nodes"]
    assert set(lost["nodes"]).isdisjoint(last["nodes"])
    assert lost["nodes"][0] in lost["message"]


def test_the_stacks_of_a_hang_are_in_the_report(kubectl: Kubectl, saved: dict[int, int]) -> None:
    found = run_inside(kubectl, "read_stacks.py", "/workspace", VICTIM, claims={"/workspace": WORKSPACE})
    assert sorted(found) == ["stacks-2-0.txt", "stacks-2-1.txt"]
    assert "train/loop.py" in found["stacks-2-0.txt"], "the stack of the rank that waits is not there"
    assert "in state T" in found["stacks-2-1.txt"], "the stopped rank is not named"


def test_the_adapter_is_the_undisturbed_twins_bit_by_bit(kubectl: Kubectl, saved: dict[int, int]) -> None:
    found = run_inside(kubectl, "adapter_digests.py", "/workspace", CALM, VICTIM, claims={"/workspace": WORKSPACE})
    assert found[VICTIM] == found[CALM]
