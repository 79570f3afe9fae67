"""Bad input, met before any GPU pod exists: the message names what is wrong, and no training pod is created."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from examples.demo.inputs import CLAIM
from examples.demo.kube import Kubectl, condition_of
from tests.e2e.runs import ADAPTER_ONLY, KIND, merged, run_named, status_of

Changes = dict[str, Any]


def dataset(uri: str, **more: Any) -> Changes:
    return {"dataset": {"sources": [{"uri": uri}], **more}}


BAD: dict[str, tuple[Changes, str, Sequence[str]]] = {
    "missing-claim": (dataset("pvc://no-such-claim/x.jsonl"), "Prepared", ["no-such-claim"]),
    "missing-file": (dataset(f"pvc://{CLAIM}/none.jsonl"), "Prepared", ["none.jsonl"]),
    "missing-field": (
        dataset(f"pvc://{CLAIM}/no-response.jsonl"),
        "Prepared",
        ["no-response.jsonl", "line 2", "response"],
    ),
    "no-records": (dataset(f"pvc://{CLAIM}/empty.jsonl"), "Prepared", ["empty.jsonl"]),
    "too-long": (
        dataset(f"pvc://{CLAIM}/too-long.jsonl", tooLong="fail"),
        "Prepared",
        ["too-long.jsonl", "line 2", "sequenceLength"],
    ),
    "wrong-image": ({"podTemplate": {"all": {"image": "localhost/no-such-image:1"}}}, "Prepared", ["no-such-image"]),
    "odd-batch": ({"training": {"globalBatchSize": 7}}, "Accepted", ["training.globalBatchSize"]),
}


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


@pytest.fixture(scope="module")
def applied(kubectl: Kubectl) -> None:
    """All bad runs at once: they do not need each other's time."""
    kubectl.apply(*(run_named(name, **merged(changes, ADAPTER_ONLY)) for name, (changes, _, _) in BAD.items()))


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("applied")
def test_the_condition_says_what_is_wrong(kubectl: Kubectl, name: str) -> None:
    _, kind, words = BAD[name]

    def told() -> bool:
        condition = condition_of({"status": status_of(kubectl, name)}, kind)
        return condition.get("status") == "False" and all(word in condition["message"] for word in words)

    try:
        kubectl.wait_for(f"{name}: {kind}=False naming {words}", told, timeout=120)
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{kubectl('describe', KIND, name)}") from error
    assert kubectl.list("jobs", f"falcon-finetune.dev/run={name},falcon-finetune.dev/stage=train") == []


@pytest.mark.usefixtures("applied")
def test_a_wrong_image_is_told_within_a_minute(kubectl: Kubectl) -> None:
    run = kubectl.get(KIND, "wrong-image")
    assert run
    told = condition_of(run, "Prepared")
    assert told["reason"] == "ImagePullBackOff"
    assert seconds_between(run["metadata"]["creationTimestamp"], told["lastTransitionTime"]) <= 60
