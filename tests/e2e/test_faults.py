"""A gang that loses a pod."""

import re

from examples.demo.kube import Kubectl, condition_of
from tests.e2e.runs import ADAPTER_ONLY, run_named, status_of, wait_true

RUN = "loses-a-pod"
EVERY = 5


def resumed_step(kubectl: Kubectl) -> int:
    """The step that rank 0 of the second attempt says it went on from."""
    rank_0 = f"batch.kubernetes.io/job-name={RUN}-train-2,batch.kubernetes.io/job-completion-index=0"
    log = kubectl("logs", "-l", rank_0, "--tail=-1")
    found = re.search(r"^Going on from \S+ at step (\d+)\.$", log, re.MULTILINE)
    assert found, f"attempt 2 began anew:\n{log[-2000:]}"
    return int(found.group(1))


def test_a_deleted_train_pod_costs_no_more_than_one_interval(kubectl: Kubectl) -> None:
    kubectl.apply(run_named(RUN, training={"checkpoint": {"everySteps": EVERY}}, **ADAPTER_ONLY))

    def checkpointed() -> bool:
        return ((status_of(kubectl, RUN).get("training") or {}).get("lastCheckpointStep") or 0) >= EVERY

    kubectl.wait_for("the first checkpoint", checkpointed, timeout=300, interval=0.2)
    before = status_of(kubectl, RUN)["training"]["lastCheckpointStep"]
    pod = kubectl.list("pods", f"batch.kubernetes.io/job-name={RUN}-train-1,batch.kubernetes.io/job-completion-index=1")
    kubectl("delete", "pod", pod[0]["metadata"]["name"], "--wait=false")

    status = wait_true(kubectl, RUN, "Trained")
    first, second = status["attempts"]
    assert (first["attempt"], first["state"]) == (1, "Disrupted"), first
    assert (second["attempt"], second["state"]) == (2, "Succeeded")
    assert second["resumedFromStep"] >= before, "the second attempt did not resume from the newest checkpoint"
    assert status["training"]["step"] == status["training"]["totalSteps"]
    assert resumed_step(kubectl) >= before, "rank 0 itself did not go on from the newest checkpoint"


def test_an_adapter_only_run_is_ready_without_an_endpoint(kubectl: Kubectl) -> None:
    status = wait_true(kubectl, RUN, "Ready", timeout=30)
    assert "endpoint" not in status
    assert status["stage"] == "Succeeded"
    assert condition_of({"status": status}, "Serving").get("status") != "True"
