"""A client that never stops asking: through new arguments, a new element type, a server that cannot start, and the
hand-over of the endpoint's stable name to a second run and back. None of its requests may fail.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo.inputs import claim
from examples.demo.kube import Kubectl, Manifest, condition_of
from tests.e2e.inside import Background, run_inside
from tests.e2e.runs import KIND, run_named, status_of, wait_true

ALIAS = "assistant"
OLD, NEW = "rollout-old", "rollout-new"
SHELF = "shelf"
"""The claim that results are copied to."""
SPEC: dict[str, Any] = {"training": {"maxSteps": 3}, "serve": {"alias": ALIAS}}


def patch(kubectl: Kubectl, **spec: Any) -> None:
    kubectl("patch", KIND, OLD, "--type=merge", "-p", json.dumps({"spec": spec}))


def digest(status: dict[str, Any]) -> str:
    return str(status.get("merged", {}).get("digest"))


def deployment(kubectl: Kubectl) -> Manifest:
    return kubectl.get("deployment", f"{OLD}-serve") or {}


def settled(kubectl: Kubectl, generation: int) -> bool:
    """Whether the Deployment was changed since `generation`, and only pods of its newest form are there."""
    found = deployment(kubectl)
    now = found["metadata"]["generation"]
    counts = found.get("status", {})
    current: bool = counts.get("observedGeneration") == now and now > generation
    return current and counts.get("replicas") == counts.get("updatedReplicas") == counts.get("availableReplicas") == 1


def holder(kubectl: Kubectl) -> str | None:
    """The run that the Service of the stable name leads to."""
    service = kubectl.get("service", ALIAS) or {}
    run: str | None = service.get("spec", {}).get("selector", {}).get("falcon-finetune.dev/run")
    return run


@pytest.fixture(scope="module")
def served(kubectl: Kubectl) -> dict[str, Any]:
    """The status of the first run, once it is served under the stable name and its results are copied."""
    kubectl.apply(claim(SHELF))
    copies = [{"uri": f"pvc://{SHELF}/model"}, {"uri": f"pvc://{SHELF}/adapter", "what": "adapter"}]
    kubectl.apply(run_named(OLD, **SPEC, publish=copies))
    return wait_true(kubectl, OLD, "Ready")


@pytest.fixture(scope="module")
def client(kubectl: Kubectl, served: dict[str, Any]) -> Iterator[Background]:
    """The client that asks all the time."""
    with Background(kubectl, "keep_asking.py", f"http://{ALIAS}.{kubectl.namespace}.svc", ALIAS) as asking:
        yield asking


@pytest.fixture(scope="module")
def rolled(kubectl: Kubectl, client: Background) -> str:
    """New arguments, rolled out; the digest of the model that they serve."""
    generation = deployment(kubectl)["metadata"]["generation"]
    patch(kubectl, serve={"args": ["--threads", "1"]})
    kubectl.wait_for("the server with new arguments", lambda: settled(kubectl, generation), timeout=240)
    return digest(wait_true(kubectl, OLD, "Serving"))


@pytest.fixture(scope="module")
def remerged(kubectl: Kubectl, rolled: str) -> dict[str, Any]:
    """The status after the model was merged anew in another element type, and rolled out."""
    generation = deployment(kubectl)["metadata"]["generation"]
    patch(kubectl, merge={"dtype": "bfloat16"})
    kubectl.wait_for("a model of another type", lambda: digest(status_of(kubectl, OLD)) != rolled, timeout=240)
    kubectl.wait_for("the server with the other model", lambda: settled(kubectl, generation), timeout=240)
    return wait_true(kubectl, OLD, "Serving")


@pytest.fixture(scope="module")
def unable(kubectl: Kubectl, remerged: dict[str, Any]) -> Manifest:
    """The Deployment while a new server cannot start (its image is not there), before it is mended."""
    patch(kubectl, podTemplate={"serve": {"image": "localhost/no-such-image:1"}})

    def fails() -> bool:
        condition = condition_of({"status": status_of(kubectl, OLD)}, "Serving")
        return "image" in f"{condition.get('reason')} {condition.get('message')}".lower()

    kubectl.wait_for("the status to say that the new server cannot start", fails, timeout=120)
    found, generation = deployment(kubectl), deployment(kubectl)["metadata"]["generation"]
    patch(kubectl, podTemplate=None)
    kubectl.wait_for("the mended server", lambda: settled(kubectl, generation), timeout=240)
    return found


@pytest.fixture(scope="module")
def handed_over(kubectl: Kubectl, unable: Manifest) -> dict[str, Any]:
    """The status of a second run, once it has taken the stable name over."""
    kubectl.apply(run_named(NEW, **SPEC))
    wait_true(kubectl, NEW, "Ready")
    kubectl.wait_for("the hand-over", lambda: holder(kubectl) == NEW, timeout=60)
    kubectl.wait_for("its status", lambda: status_of(kubectl, NEW).get("alias") == ALIAS, timeout=60)
    return status_of(kubectl, NEW)


@pytest.fixture(scope="module")
def given_back(kubectl: Kubectl, handed_over: dict[str, Any], client: Background) -> dict[str, Any]:
    """What the client saw from first to last: the second run is deleted, the first one has the name again."""
    client.wait_for(f"answered by {NEW}")
    kubectl("delete", KIND, NEW, "--wait=true")
    kubectl.wait_for("the name to come back", lambda: holder(kubectl) == OLD, timeout=60)
    kubectl.wait_for(
        "the second run's server to go", lambda: not kubectl.list("pods", f"falcon-finetune.dev/run={NEW}")
    )
    return client.result()


def test_results_are_copied_to_another_claim(kubectl: Kubectl, served: dict[str, Any]) -> None:
    copies = {copy["what"]: copy for copy in served["published"]}
    assert copies["merged"]["digest"] == served["merged"]["digest"]
    assert copies["adapter"]["digest"] == served["adapter"]["digest"]
    loads = run_inside(kubectl, "inspect_copies.py", "/shelf", claims={"/shelf": SHELF})
    assert loads == {"model": True, "adapter": True}


def test_new_arguments_keep_the_model(served: dict[str, Any], rolled: str) -> None:
    assert rolled == digest(served)


def test_a_new_element_type_is_a_new_model(rolled: str, remerged: dict[str, Any]) -> None:
    assert digest(remerged) != rolled
    assert remerged["merge"]["dtype"] == "bfloat16"
    assert remerged["merged"]["bytes"] < 0.6 * remerged["model"]["bytes"] + 1_000_000


def test_a_server_that_cannot_start_never_replaces_the_old_one(unable: Manifest) -> None:
    assert unable["status"]["availableReplicas"] == 1
    assert unable["status"]["unavailableReplicas"] == 1


def test_the_newest_run_has_the_name_until_it_is_deleted(
    handed_over: dict[str, Any], given_back: dict[str, Any]
) -> None:
    assert given_back["servers"] == [OLD, NEW]


def test_no_request_failed(given_back: dict[str, Any]) -> None:
    assert given_back["failed"] == []
    assert min(given_back["counts"]["kept"], given_back["counts"]["new"]) > 20
